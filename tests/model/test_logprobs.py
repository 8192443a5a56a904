"""Chunked log-probabilities against the dense [tokens, V] computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.model.logprobs import token_logprobs


def inputs(M=23, D=6, V=17):
    rng = np.random.default_rng(0)
    hidden, head = rng.normal(size=(M, D)), rng.normal(size=(D, V))
    return hidden.astype(np.float32), head.astype(np.float32), rng.integers(0, V, M)


def dense(hidden, head, tokens, temperature):
    logprobs = jax.nn.log_softmax(hidden @ head / temperature)
    entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
    return logprobs[jnp.arange(len(tokens)), tokens], entropy


# One chunk, chunks with a remainder, chunks without one, a chunk a token.
@pytest.mark.parametrize("chunk", [1024, 10, 23, 1])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_and_gradients_are_the_dense_ones(chunk, temperature, assert_close):
    hidden, head, tokens = inputs()
    weights = np.random.default_rng(1).normal(size=len(tokens))

    def loss(function, hidden, head):
        logprobs, entropy = function(hidden, head, tokens, temperature)
        return jnp.sum(weights * logprobs), (logprobs, entropy)

    def chunked(hidden, head, tokens, temperature):
        return token_logprobs(hidden, head, tokens, temperature=temperature, chunk=chunk)

    grad = jax.jit(jax.grad(loss, argnums=(1, 2), has_aux=True), static_argnums=0)
    assert_close(grad(chunked, hidden, head), grad(dense, hidden, head), rtol=1e-5)


def test_gradient_by_finite_differences():
    hidden, head, tokens = inputs(M=5)

    @jax.jit
    def loss(hidden):
        return token_logprobs(hidden, head, tokens, chunk=2)[0].sum()

    gradient = jax.grad(loss)(hidden)
    step = 1e-2
    for row, column in [(0, 0), (2, 3), (4, 5)]:
        nudge = np.zeros_like(hidden)
        nudge[row, column] = step
        slope = (loss(hidden + nudge) - loss(hidden - nudge)) / (2 * step)
        np.testing.assert_allclose(gradient[row, column], slope, rtol=0, atol=2e-3)


def test_entropy_carries_no_gradient():
    hidden, head, tokens = inputs()
    gradient = jax.grad(lambda h: token_logprobs(h, head, tokens, chunk=7)[1].sum())(hidden)
    np.testing.assert_array_equal(gradient, 0)


def test_entropy_bounds():
    """Equal logits give log V; one overwhelming logit gives 0."""
    flat = token_logprobs(jnp.zeros((3, 4)), jnp.ones((4, 17)), jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(flat, -np.log(17) * np.array([[1.0], [-1.0]]) * np.ones(3), rtol=1e-6)
    sharp = token_logprobs(jnp.ones((1, 1)), jnp.array([[1e4, 0.0]]), jnp.zeros(1, jnp.int32))
    np.testing.assert_array_equal(sharp, [[0.0], [0.0]])


def test_float32_results_of_bfloat16_hidden_states():
    hidden, head, tokens = inputs()
    got = token_logprobs(jnp.asarray(hidden, jnp.bfloat16), head, tokens)
    assert all(part.dtype == jnp.float32 for part in got)
    np.testing.assert_allclose(got, dense(hidden, head, tokens, 1.0), atol=0.1)
