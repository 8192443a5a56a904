"""Adapters: y = x W + scale (x A) B, and nothing else changes."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import traverse_util
from flax.linen import meta, stochastic

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.config import LINEAR_LAYERS, LoRAConfig
from r2rec_jax.model.llama import Llama, abstract_variables, init_variables
from r2rec_jax.model.lora import Linear, merge
from r2rec_jax.runtime.errors import UserError

TOKENS = np.arange(14, dtype=np.int32).reshape(2, 7)
LORA = LoRAConfig(rank=3, alpha=6.0)


def hidden(model, variables):
    return jax.jit(lambda variables: model.apply(variables, TOKENS)[0])(variables)


def test_one_layer_against_numpy():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 8)), rng.normal(size=(8, 4))
    a, b = rng.normal(size=(8, 3)), rng.normal(size=(3, 4))
    layer = Linear(4, ("embed", "heads"), LoRAConfig(rank=3, alpha=12.0), name="q_proj")
    got = layer.apply({"params": {"kernel": w}, "lora": {"a": a, "b": b}}, x.astype(np.float32))
    np.testing.assert_allclose(got, x @ w + 12.0 / 3 * x @ a @ b, rtol=1e-4, atol=1e-4)


def test_a_fresh_adapter_changes_nothing(config):
    variables = init_variables(Llama(config, LORA), seed=0)
    bare = hidden(Llama(config), {"params": variables["params"]})
    np.testing.assert_array_equal(hidden(Llama(config, LORA), variables), bare)
    a = variables["lora"]["layers"]["mlp"]["up_proj"]["a"]
    assert np.all(a != 0), "A must not start at zero too, or nothing would ever be learnt"
    assert not np.array_equal(a[0], a[1]), "layers must draw adapters of their own"


@pytest.mark.parametrize("use_rslora", [False, True])
def test_equals_the_merged_weights(use_rslora, config, randomize, assert_close):
    lora = dataclasses.replace(LORA, use_rslora=use_rslora)
    model = Llama(config, lora)
    variables = init_variables(model, seed=0)
    variables["lora"] = randomize(variables["lora"])
    params = traverse_util.flatten_dict(variables["params"])
    merged = dict(params)
    adapters = traverse_util.flatten_dict(variables["lora"])
    scale = 6.0 / np.sqrt(3) if use_rslora else 6.0 / 3
    for *path, leaf in adapters:
        if leaf == "a":
            a, b = adapters[*path, "a"], adapters[*path, "b"]
            merged[*path, "kernel"] += scale * np.einsum("lir,lro->lio", a, b)
    got = hidden(model, variables)
    bare = hidden(Llama(config), {"params": variables["params"]})
    assert np.abs(got - bare).max() > 0.1
    assert_close(got, hidden(Llama(config), {"params": traverse_util.unflatten_dict(merged)}))
    assert_close(dict(merge(params.items(), variables["lora"], lora)), merged, rtol=1e-6)


def test_a_bfloat16_base_is_merged_in_float32_and_rounded_once(config, randomize):
    lora = LoRAConfig(3, 6.0, ("up_proj",))
    variables = init_variables(Llama(config, lora), seed=0)
    path = ("layers", "mlp", "up_proj", "kernel")
    params = {
        name: leaf.astype(jnp.bfloat16)
        for name, leaf in traverse_util.flatten_dict(variables["params"]).items()
    }
    adapter = randomize(variables["lora"])
    merged = dict(merge(params.items(), adapter, lora))
    a, b = (np.float64(adapter["layers"]["mlp"]["up_proj"][side]) for side in "ab")
    exact = np.asarray(params[path], np.float64) + 2.0 * np.einsum("lir,lro->lio", a, b)
    assert merged[path].dtype == jnp.bfloat16
    # bfloat16 keeps eight bits: half a unit in the last place is 2 ** -9 of the power of two below.
    error = np.abs(merged[path].astype(np.float64) - exact)
    assert np.all(error <= np.abs(exact) * 2.0**-8 * 1.001)
    assert all(np.array_equal(merged[name], params[name]) for name in params if name != path)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",), LINEAR_LAYERS])
def test_only_the_targets_own_adapters(config, targets):
    lora = meta.unbox(abstract_variables(Llama(config, LoRAConfig(3, 6.0, targets))))["lora"]
    owners = {path[-2] for path in traverse_util.flatten_dict(lora)}
    assert owners == set(targets)


def test_shapes(config):
    lora = meta.unbox(abstract_variables(Llama(config, LORA)))["lora"]["layers"]
    # Two layers; hidden 20, feed-forward 28, 4 heads and 2 kv heads of width 6.
    assert lora["self_attn"]["k_proj"]["a"].shape == (2, 20, 3)
    assert lora["self_attn"]["k_proj"]["b"].shape == (2, 3, 12)
    assert lora["self_attn"]["o_proj"]["a"].shape == (2, 24, 3)
    assert lora["mlp"]["down_proj"]["a"].shape == (2, 28, 3)


def test_gradients_reach_every_adapter_and_match_the_merged_weight(config, randomize, assert_close):
    """dL/dA = scale dL/dW B^T and dL/dB = scale A^T dL/dW, by the chain rule."""
    model = Llama(config, LORA)
    variables = init_variables(model, seed=0)
    params, lora = variables["params"], randomize(variables["lora"])
    target = np.random.default_rng(1).normal(size=(*TOKENS.shape, config.hidden_size))

    @jax.jit
    @jax.grad
    def gradient(trainable):
        return jnp.sum(target * model.apply(trainable, TOKENS)[0])

    both = gradient({"params": params, "lora": lora})
    for path, d_kernel in traverse_util.flatten_dict(both["params"]).items():
        if path[-1] == "kernel":
            adapter, d_adapter = lora, both["lora"]
            for part in path[:-1]:
                adapter, d_adapter = adapter[part], d_adapter[part]
            expected = {
                "a": LORA.scale * np.einsum("lio,lro->lir", d_kernel, adapter["b"]),
                "b": LORA.scale * np.einsum("lir,lio->lro", adapter["a"], d_kernel),
            }
            assert_close(d_adapter, expected)
            assert all(np.abs(leaf).max() > 0 for leaf in expected.values())


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"rank": 0}, "rank"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"targets": ("q_proj", "qproj")}, "targets"),
        ({"targets": ()}, "targets"),
    ],
)
def test_what_makes_no_adapter_is_refused(changed, field):
    with pytest.raises(UserError, match=rf"lora\.{field}"):
        dataclasses.replace(LORA, **changed)


def test_steps_below_bfloat16_are_not_lost(config, randomize):
    """The adapter, its gradient and its update are float32 over a bfloat16 base and activations."""
    model = Llama(config, LORA, dtype=jnp.bfloat16)
    variables = init_variables(model, seed=0)
    base = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])
    before = randomize(variables["lora"])

    @jax.jit
    def gradient(lora):
        def loss(lora):
            return model.apply({"params": base, "lora": lora}, TOKENS)[0].astype(jnp.float32).sum()

        return jax.grad(loss)(lora)

    grads = jax.device_get(gradient(before))
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {np.dtype(np.float32)}
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    grads = jax.tree.map(lambda leaf: -1e-4 / largest * leaf, grads)
    step = jax.jit(optax.apply_updates)
    after = step(before, grads)
    halves = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), before)
    changed, lost = 0, 0
    for old, new, half, half_after in zip(
        *(jax.tree.leaves(tree) for tree in (before, after, halves, step(halves, grads))), strict=True
    ):
        assert new.dtype == np.float32 and half_after.dtype == jnp.bfloat16
        changed += np.sum(np.asarray(new) != old)
        lost += np.sum((np.asarray(new) != old) & (np.asarray(half_after) == np.asarray(half)))
    assert changed > 500 and lost > 0.9 * changed


RATE = 0.3
DROPPED = LoRAConfig(rank=8, alpha=8.0, dropout=RATE)


def masks(rows: int, key: int, name: str = "q_proj") -> np.ndarray:
    """What a layer of 8 inputs left out: with W = 0, A = B = I and inputs of 1 its output is the mask."""
    variables = {
        "params": {"kernel": np.zeros((8, 8), np.float32)},
        "lora": {"a": np.eye(8, dtype=np.float32), "b": np.eye(8, dtype=np.float32)},
    }
    layer = Linear(8, ("embed", "heads"), DROPPED, name=name)
    rngs = {"dropout": jax.random.key(key)}
    return np.asarray(layer.apply(variables, np.ones((rows, 8), np.float32), rngs=rngs))


def test_dropout_leaves_out_its_share_and_scales_the_rest():
    got = masks(4000, key=0)
    kept = got > 0
    np.testing.assert_allclose(got[kept], 1 / (1 - RATE), rtol=1e-6)
    tolerance = 4 * np.sqrt(RATE * (1 - RATE) / got.size)
    assert abs(kept.mean() - (1 - RATE)) < tolerance
    # Inputs are left out one by one, not row by row or column by column.
    assert np.all(np.abs(kept.mean(axis=0) - (1 - RATE)) < 5 * np.sqrt(RATE * (1 - RATE) / 4000))
    assert abs((kept[:, 0] & kept[:, 1]).mean() - (1 - RATE) ** 2) < 0.04
    assert np.array_equal(got, masks(4000, key=0)) and not np.array_equal(got, masks(4000, key=1))


def test_dropout_gradients_are_those_of_its_mask():
    """dL/dA = s (m x)^T dy B^T and dL/dB = s ((m x) A)^T dy; the base sees every input."""
    rng = np.random.default_rng(0)
    x, w, dy = rng.normal(size=(5, 8)), rng.normal(size=(8, 8)), rng.normal(size=(5, 8))
    a, b = rng.normal(size=(8, 8)), rng.normal(size=(8, 8))
    layer = Linear(8, ("embed", "heads"), dataclasses.replace(DROPPED, alpha=16.0), name="q_proj")

    def loss(lora, x):
        variables = {"params": {"kernel": w}, "lora": lora}
        y = layer.apply(variables, x, rngs={"dropout": jax.random.key(3)})
        return jnp.sum(dy * y)

    got, dx = jax.grad(loss, argnums=(0, 1))({"a": a, "b": b}, x.astype(np.float32))
    mask = masks(5, key=3)
    assert 0 < (mask == 0).sum() < mask.size
    np.testing.assert_allclose(got["a"], 2.0 * (mask * x).T @ dy @ b.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["b"], 2.0 * ((mask * x) @ a).T @ dy, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dx, dy @ w.T + mask * (2.0 * dy @ b.T @ a.T), rtol=1e-4, atol=1e-4)


@pytest.fixture
def batch() -> CompletionBatch:
    rng = np.random.default_rng(0)
    return CompletionBatch(
        prompt=rng.integers(0, 53, (2, 5)).astype(np.int32),
        prompt_length=np.array([5, 3], np.int32),
        response=rng.integers(0, 53, (4, 4)).astype(np.int32),
        response_mask=np.ones((4, 4), np.float32),
    )


def test_dropout_is_off_without_a_key(config, randomize, batch):
    """Scoring and evaluation pass none: bit for bit the model without dropout."""
    lora = randomize(init_variables(Llama(config, LORA), seed=0)["lora"])
    variables = {"params": init_variables(Llama(config), seed=0)["params"], "lora": lora}

    def run(dropout, key):
        model = Llama(config, dataclasses.replace(LORA, dropout=dropout))
        run = jax.jit(lambda v, batch: completion_logprobs(model, v, batch, dropout_key=key)[0])
        return run(variables, batch)

    plain = run(0.0, None)
    np.testing.assert_array_equal(run(RATE, None), plain)
    np.testing.assert_array_equal(run(0.0, jax.random.key(0)), plain)
    assert np.abs(run(RATE, jax.random.key(0)) - plain).max() > 1e-2


def test_every_adapter_of_a_pass_has_a_mask_of_its_own(config, batch, monkeypatch):
    """Seven linear layers in each of two blocks, over the prompt and over its completions: 28 keys."""
    keys = set()

    def note(key, p, shape):  # noqa: ARG001
        def mask(data):
            keys.add(data.tobytes())
            return np.ones(shape, bool)

        return jax.pure_callback(mask, jax.ShapeDtypeStruct(shape, bool), jax.random.key_data(key))

    monkeypatch.setattr(stochastic.random, "bernoulli", note)
    model = Llama(config, dataclasses.replace(LORA, dropout=RATE))
    variables = init_variables(model, seed=0)
    run = jax.jit(lambda v, batch: completion_logprobs(model, v, batch, dropout_key=jax.random.key(0)))
    jax.block_until_ready(run(variables, batch))
    assert len(keys) == 28
