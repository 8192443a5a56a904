"""Against Hugging Face's Llama (files of tests/golden/make_golden.py), and a real tiny model."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from r2rec_jax.model import hf
from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.llama import Llama, head


def logits(model, params, tokens):
    hidden, _ = model.apply({"params": params}, tokens)
    return (hidden @ head(params).astype(hidden.dtype)).astype(jnp.float32)


def completions(golden) -> CompletionBatch:
    """The golden rows cut at their prompt's end."""
    tokens, prompt_length, length = golden["tokens"], golden["prompt_length"], golden["length"]
    prompt = np.zeros((len(tokens), prompt_length.max()), np.int32)
    response = np.zeros((len(tokens), (length - prompt_length).max()), np.int32)
    mask = np.zeros(response.shape, np.float32)
    for row, (begin, end) in enumerate(zip(prompt_length, length, strict=True)):
        prompt[row, :begin] = tokens[row, :begin]
        response[row, : end - begin] = tokens[row, begin:end]
        mask[row, : end - begin] = 1
    return CompletionBatch(prompt, prompt_length.astype(np.int32), response, mask)


def test_logits(golden, assert_close):
    arrays, folder = golden
    config, params = hf.load_params(folder, np.float32)
    got = jax.jit(logits, static_argnums=0)(Llama(config), params, arrays["tokens"])
    assert_close(got[tuple(arrays["position"].T)], arrays["logits"])
    valid = np.arange(got.shape[1]) < arrays["length"][:, None]
    assert_close(jnp.where(valid, jax.nn.logsumexp(got, -1), 0), arrays["normaliser"])


def test_loss_and_gradients(golden, assert_close):
    arrays, folder = golden
    config, params = hf.load_params(folder, np.float32)
    batch = completions(arrays)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        logprobs, _ = completion_logprobs(Llama(config), {"params": params}, batch)
        return -jnp.sum(logprobs * batch.response_mask) / jnp.sum(batch.response_mask)

    value, gradients = jax.device_get(loss(params))
    assert_close(value, arrays["loss"])
    compared = set()
    for path, stacked in traverse_util.flatten_dict(gradients).items():
        layers = enumerate(stacked) if path[0] == "layers" else [(None, stacked)]
        for layer, gradient in layers:
            name = hf.hf_name(path, layer)
            gradient = gradient.T if path[-1] in ("kernel", "lm_head") else gradient
            assert_close(np.linalg.norm(gradient), arrays[f"norm/{name}"])
            expected = arrays[f"gradient/{name}"]
            assert_close(gradient[: len(expected)], expected)
            compared.add(name)
    assert compared == {n.removeprefix("norm/") for n in arrays if n.startswith("norm/")}


def test_bfloat16_is_as_near_as_torch(golden):
    arrays, folder = golden
    config, params = hf.load_params(folder, np.float32)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    run = jax.jit(logits, static_argnums=0)
    exact = jax.nn.log_softmax(run(Llama(config), params, arrays["tokens"]))
    rough = jax.nn.log_softmax(run(Llama(config, dtype=jnp.bfloat16), half, arrays["tokens"]))
    valid = np.arange(exact.shape[1]) < arrays["length"][:, None]
    kl = jnp.sum(jnp.exp(exact) * (exact - rough), -1)[valid].mean()
    assert 0 < kl < 1.5 * arrays["bfloat16_kl"]


@pytest.fixture(scope="module")
def stories():
    shared = Path(os.environ.get("R2REC_SHARED", "../shared"))
    folder = shared / "data" / "weights" / "stories260K-hf"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set R2REC_SHARED to the folder above data/")
    return np.load(folder / "golden.npz"), *hf.load_params(folder, np.float32)


def test_a_real_model(stories, assert_close):
    arrays, config, params = stories
    got = logits(Llama(config), params, arrays["input_ids"][None].astype(np.int32))
    assert_close(got[0], arrays["logits"])


def test_greedy_text_of_a_real_model(stories):
    arrays, config, params = stories
    step = jax.jit(lambda params, tokens: jnp.argmax(logits(Llama(config), params, tokens)[0], -1))
    greedy = arrays["greedy"]
    tokens = np.zeros((1, len(greedy)), np.int32)
    tokens[0, 0] = greedy[0]
    for column in range(1, len(greedy)):
        tokens[0, column] = step(params, tokens)[column - 1]
    np.testing.assert_array_equal(tokens[0], greedy)
