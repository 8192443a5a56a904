"""Adapters: y = x W + scale (x A) B, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.linen import meta

from r2rec_jax.model.llama import Llama, abstract_variables, init_variables
from r2rec_jax.model.lora import LINEAR_LAYERS, Linear, LoRAConfig

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


def test_equals_the_merged_weights(config, randomize, assert_close):
    model = Llama(config, LORA)
    variables = init_variables(model, seed=0)
    variables["lora"] = randomize(variables["lora"])
    merged = traverse_util.flatten_dict(variables["params"])
    adapters = traverse_util.flatten_dict(variables["lora"])
    for *path, leaf in adapters:
        if leaf == "a":
            a, b = adapters[*path, "a"], adapters[*path, "b"]
            merged[*path, "kernel"] += LORA.scale * np.einsum("lir,lro->lio", a, b)
    got = hidden(model, variables)
    bare = hidden(Llama(config), {"params": variables["params"]})
    assert np.abs(got - bare).max() > 0.1
    assert_close(got, hidden(Llama(config), {"params": traverse_util.unflatten_dict(merged)}))


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
