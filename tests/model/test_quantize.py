"""The int8 base: how far weights move, that gradients are exact, and what the logits of a real model lose."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.linen import meta

from r2rec_jax.model import huggingface
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, abstract_variables, head, init_variables
from r2rec_jax.model.quantize import quantize, quantize_params
from r2rec_jax.runtime import mesh as meshes

TOKENS = np.arange(14, dtype=np.int32).reshape(2, 7)


def to_int8(model: Llama, params: dict) -> dict:
    placed = meshes.shardings(abstract_variables(model.clone(int8=True)), meshes.make_mesh(data=1))
    return quantize_params(traverse_util.flatten_dict(params).items(), placed["params"])


def dequantized(params: dict) -> dict:
    """The float tree that an int8 one stands for, by numpy."""
    flat = {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params).items()}
    for path in [path for path in flat if path[-1] == "kernel"]:
        scale = flat.pop((*path[:-1], "scale"))
        flat[path] = flat[path].astype(np.float32) * scale[:, None, :]
    return traverse_util.unflatten_dict(flat)


@pytest.fixture(scope="module")
def both(config):
    """(float params, the same in int8) of a tiny model."""
    params = init_variables(Llama(config), seed=0)["params"]
    return params, to_int8(Llama(config), params)


def test_no_weight_moves_by_more_than_half_a_step():
    rng = np.random.default_rng(0)
    kernel = (rng.normal(size=(3, 40, 6)) * 10.0 ** rng.integers(-3, 3, (3, 1, 6))).astype(np.float32)
    kernel[1, :, 2] = 0
    stored, scale = jax.device_get(quantize(jnp.asarray(kernel)))
    assert (stored.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, (3, 6))
    largest = np.abs(kernel).max(axis=1)
    np.testing.assert_allclose(scale, np.where(largest > 0, largest, 1.0) / 127, rtol=1e-6)
    moved = np.abs(stored * scale[:, None, :].astype(np.float64) - kernel)
    assert np.all(moved <= scale[:, None, :] * (0.5 + 1e-4))
    # Rounding errors of random weights fill the half step evenly.
    np.testing.assert_allclose((moved / scale[:, None, :])[kernel != 0].mean(), 0.25, atol=0.02)
    peaks = np.abs(stored.astype(int)).max(axis=1)
    assert np.all(peaks == np.where(largest > 0, 127, 0))


def test_channels_of_subnormal_numbers_are_zero():
    kernel = np.zeros((3, 4), np.float32)
    kernel[:, 1], kernel[:, 2], kernel[1, 3] = 1e-40, 1e-37, 2.0
    whole, scale = quantize(jnp.asarray(kernel))
    assert np.isfinite(scale).all() and (np.asarray(scale) > 0).all()
    assert np.array_equal(whole, [[0, 0, 0, 0], [0, 0, 0, 127], [0, 0, 0, 0]])


def test_only_the_seven_linear_layers_are_int8(both, config):
    params, int8 = both
    wanted = shapes(Llama(config, int8=True))
    assert {
        path: (leaf.shape, leaf.dtype) for path, leaf in traverse_util.flatten_dict(int8).items()
    } == wanted
    kinds = [path for path, (_, dtype) in wanted.items() if dtype == np.int8]
    assert len(kinds) == 7 and all(path[0] == "layers" and path[-1] == "kernel" for path in kinds)
    np.testing.assert_array_equal(int8["embed_tokens"], params["embed_tokens"])


def shapes(model):
    abstract = meta.unbox(abstract_variables(model))["params"]
    return {path: (leaf.shape, leaf.dtype) for path, leaf in traverse_util.flatten_dict(abstract).items()}


def test_hidden_states_and_adapter_gradients_are_those_of_the_dequantised_weights(
    both, config, randomize, assert_close
):
    lora = LoRAConfig(rank=3, alpha=6.0)
    adapter = randomize(init_variables(Llama(config, lora), seed=0)["lora"])
    target = np.random.default_rng(1).normal(size=(*TOKENS.shape, config.hidden_size))

    def run(model, params):
        def loss(adapter):
            hidden = model.apply({"params": params, "lora": adapter}, TOKENS)[0]
            return jnp.sum(target * hidden), hidden

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(adapter)

    got = run(Llama(config, lora, int8=True), both[1])
    assert_close(got, run(Llama(config, lora), dequantized(both[1])), rtol=3e-5)


def test_bfloat16_activations_see_the_exact_integers(both, config):
    """The product's only roundings are bfloat16's own: no further from float32's than the float base is."""
    exact = dequantized(both[1])

    def run(model, params):
        hidden = jax.jit(lambda params: model.apply({"params": params}, TOKENS)[0])(params)
        return np.asarray(hidden, np.float32)

    wanted = run(Llama(config), exact)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), exact)
    float_error = np.abs(run(Llama(config, dtype=jnp.bfloat16), half) - wanted).mean()
    int8_error = np.abs(run(Llama(config, dtype=jnp.bfloat16, int8=True), both[1]) - wanted).mean()
    assert 0 < int8_error < 1.5 * float_error


def test_logit_error_of_a_real_model_is_that_of_rounding():
    """KL(float || int8) a token, beside weights moved at random by as much as rounding may move them."""
    shared = Path(os.environ.get("R2REC_SHARED", "../shared"))
    folder = shared / "data" / "weights" / "stories260K-hf"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set R2REC_SHARED to the folder above data/")
    golden = np.load(folder / "golden.npz")
    config, params = huggingface.load_params(folder, np.float32)
    tokens = golden["greedy"][None].astype(np.int32)

    def logprobs(model):
        return jax.jit(
            lambda params: jax.nn.log_softmax(
                model.apply({"params": params}, tokens)[0] @ head(params).astype(jnp.float32)
            )
        )

    plain = logprobs(Llama(config))
    exact = np.asarray(plain(params), np.float64)

    def divergence(rough):
        return (np.exp(exact) * (exact - np.asarray(rough, np.float64))).sum(-1)

    def shaken(seed):
        rng = np.random.default_rng(seed)
        flat = traverse_util.flatten_dict(jax.device_get(params))
        for path in [path for path in flat if path[-1] == "kernel"]:
            step = np.abs(flat[path]).max(axis=1, keepdims=True) / 127
            flat[path] = (flat[path] + step * rng.uniform(-0.5, 0.5, flat[path].shape)).astype(np.float32)
        return traverse_util.unflatten_dict(flat)

    int8 = logprobs(Llama(config, int8=True))(to_int8(Llama(config), params))
    measured, expected = divergence(int8), np.mean([divergence(plain(shaken(seed))) for seed in range(4)])
    largest = np.abs(np.asarray(int8, np.float64) - exact).max()
    print(
        f"int8 KL mean {measured.mean():.2e} max {measured.max():.2e}; random {expected:.2e}; {largest=:.3f}"
    )
    assert 0.3 * expected < measured.mean() < 3 * expected
