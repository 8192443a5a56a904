"""Chunked log-probabilities against the dense [tokens, V] computation."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from r2rec_jax.model.logprobs import token_logprobs
from r2rec_jax.runtime import mesh as meshes


def inputs(M=23, D=6, V=17, masked=0.3):
    rng = np.random.default_rng(0)
    hidden, head = rng.normal(size=(M, D)), rng.normal(size=(D, V))
    mask = (rng.random(M) >= masked).astype(np.float32)
    return hidden.astype(np.float32), head.astype(np.float32), rng.integers(0, V, M), mask


def dense(hidden, head, tokens, mask, temperature=1.0):
    logprobs = jax.nn.log_softmax(hidden @ head / temperature)
    entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
    return logprobs[jnp.arange(len(tokens)), tokens] * mask, entropy * mask


def value_and_gradients(function, argnums, arrays):
    """Gradients of a weighted sum of log-probabilities, and what was summed."""
    weights = np.random.default_rng(1).normal(size=len(arrays[2]))

    def loss(*arrays):
        logprobs, entropy = function(*arrays)
        return jnp.sum(weights * logprobs), (logprobs, entropy)

    return jax.jit(jax.grad(loss, argnums, has_aux=True))


# One chunk, chunks with a remainder, a chunk a token, and no row that counts.
CASES = [(512, 1.0, 0.0), (10, 0.6, 0.3), (1, 1.0, 0.3), (10, 1.0, 1.0)]


@pytest.mark.parametrize("argnums", [0, (0, 1)], ids=["frozen head", "trained head"])
@pytest.mark.parametrize(("chunk", "temperature", "masked"), CASES)
def test_values_and_gradients_are_the_dense_ones(chunk, temperature, masked, argnums, assert_close):
    arrays = inputs(masked=masked)

    def chunked(*arrays):
        return token_logprobs(*arrays, temperature=temperature, chunk=chunk)

    def full(*arrays):
        return dense(*arrays, temperature)

    got, expected = (value_and_gradients(f, argnums, arrays)(*arrays) for f in (chunked, full))
    assert_close(got, expected, rtol=1e-5)


def test_gradient_by_finite_differences():
    hidden, head, tokens, mask = inputs(M=5, masked=0)

    @jax.jit
    def loss(hidden):
        return token_logprobs(hidden, head, tokens, mask, chunk=2)[0].sum()

    gradient = jax.grad(loss)(hidden)
    step = 1e-2
    for row, column in [(0, 0), (2, 3), (4, 5)]:
        nudge = np.zeros_like(hidden)
        nudge[row, column] = step
        slope = (loss(hidden + nudge) - loss(hidden - nudge)) / (2 * step)
        np.testing.assert_allclose(gradient[row, column], slope, rtol=0, atol=2e-3)


@pytest.mark.parametrize("argnums", [0, (0, 1)])
def test_entropy_carries_no_gradient(argnums):
    hidden, head, *rest = inputs()

    def entropy(hidden, head):
        return token_logprobs(hidden, head, *rest, chunk=7)[1].sum()

    for gradient in jax.tree.leaves(jax.grad(entropy, argnums)(hidden, head)):
        np.testing.assert_array_equal(gradient, 0)


def test_entropy_bounds():
    """Equal logits give log V; one overwhelming logit gives 0."""
    flat = token_logprobs(jnp.zeros((3, 4)), jnp.ones((4, 17)), jnp.zeros(3, jnp.int32), jnp.ones(3))
    np.testing.assert_allclose(flat, -np.log(17) * np.array([[1.0], [-1.0]]) * np.ones(3), rtol=1e-6)
    sharp = token_logprobs(jnp.ones((1, 1)), jnp.array([[1e4, 0.0]]), jnp.zeros(1, jnp.int32), jnp.ones(1))
    np.testing.assert_array_equal(sharp, [[0.0], [0.0]])


def test_bfloat16_sums_in_float32(assert_close):
    """Against float64 on the same rounded inputs: a bfloat16 sum would be off by whole percents."""
    hidden, head, tokens, mask = inputs(M=40, D=512, V=300, masked=0)
    hidden, head = (jnp.asarray(x * 0.2, jnp.bfloat16) for x in (hidden, head))
    got, auxiliary = value_and_gradients(token_logprobs, (0, 1), (hidden, head, tokens))(
        hidden, head, tokens, mask
    )
    assert [leaf.dtype for leaf in (*got, *auxiliary)] == [jnp.bfloat16] * 2 + [jnp.float32] * 2
    exact = [np.asarray(x, np.float32) for x in (hidden, head)]
    expected, values = value_and_gradients(dense, (0, 1), (*exact, tokens))(*exact, tokens, mask)
    assert_close(auxiliary, values, rtol=1e-5)
    assert_close(got, expected, rtol=1e-2)


def matmul_operations(argnums, M=64, D=32, V=128) -> int:
    """Multiplications and additions of all dots in the compiled gradient, in units of M D V."""
    arrays = inputs(M, D, V, masked=0)
    function = value_and_gradients(token_logprobs, argnums, arrays) if argnums is not None else token_logprobs
    lowered = jax.jit(function).lower(*arrays).as_text()
    dots = re.findall(r"stablehlo.dot_general.*contracting_dims = \[(\d)\].*:.*tensor<(\d+)x(\d+)x", lowered)
    assert dots
    shapes = re.findall(r"stablehlo.dot_general.*\(tensor<(\d+)x(\d+)xf32>, tensor<(\d+)x(\d+)xf32>", lowered)
    assert len(shapes) == len(dots)
    assert all({int(n) for n in shape} == {M, D, V} for shape in shapes)
    return 2 * len(dots)


def test_a_frozen_head_costs_no_recomputation():
    assert matmul_operations(None) == 2
    assert matmul_operations(0) == 4
    assert matmul_operations((0, 1)) == 8


def test_memory_is_that_of_one_chunk():
    M, D, V = 4096, 16, 1000
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in [((M, D), "float32"), ((D, V), "float32"), ((M,), "int32"), ((M,), "float32")]
    ]

    def loss(*arrays):
        return token_logprobs(*arrays, chunk=128)[0].sum()

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < M * V * 4 / 4


@pytest.mark.slow
def test_on_eight_devices(run_on_eight_devices):
    run_on_eight_devices()


@pytest.mark.eight_devices
@pytest.mark.parametrize("argnums", [0, (0, 1)])
def test_a_split_vocabulary_is_summed_and_never_collected(argnums, assert_close):
    M, D, V = 48, 6, 1000
    arrays = inputs(M, D, V)
    expected = value_and_gradients(token_logprobs, argnums, arrays)(*arrays)
    mesh = meshes.make_mesh(data=2, tensor=4)
    rows, columns = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in [("data",), (None, "tensor")])

    def split(*arrays):
        def chunked(*arrays):
            return token_logprobs(*arrays, chunk=8)

        return meshes.by_rows(chunked, (True, False, True, True))(*arrays)

    with meshes.working_on(mesh):
        placed = jax.device_put(arrays, (rows, columns, rows, rows))
        compiled = value_and_gradients(split, argnums, arrays).lower(*placed).compile()
    assert_close(compiled(*placed), expected, rtol=1e-5)
    text = compiled.as_text()
    assert "all-reduce" in text
    assert not [line for line in text.splitlines() if "all-gather" in line and str(V) in line]
