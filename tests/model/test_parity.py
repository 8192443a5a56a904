"""Against Hugging Face's Llama (files of tests/golden/make_golden.py), and a real tiny model.

`pytest -s` on this file prints the errors found.
"""

import os
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from r2rec_jax.model import huggingface
from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.llama import Llama, head

KINDS = ("logits", "normaliser", "loss", "norm", "gradient")  # as the golden files name them


@jax.jit(static_argnums=0)
def logits(model, params, tokens):
    hidden, _ = model.apply({"params": params}, tokens)
    return (hidden @ head(params).astype(hidden.dtype)).astype(jnp.float32)


@jax.jit(static_argnums=0)
def loss_and_gradients(model, params, batch):
    def loss(params):
        logprobs, _ = completion_logprobs(model, {"params": params}, batch)
        return -jnp.sum(logprobs * batch.response_mask) / jnp.sum(batch.response_mask)

    return jax.value_and_grad(loss)(params)


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


def sampled(gradient, count: int) -> np.ndarray:
    """The entries that make_golden.py keeps."""
    return gradient.ravel()[np.linspace(0, gradient.size - 1, count).round().astype(int)]


def relative_error(actual, expected) -> float:
    """Largest difference, measured against the largest expected entry."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def errors(golden) -> dict[str, float]:
    """Relative error in float32 of everything the golden file holds, by its name there."""
    arrays, folder = golden
    config, params = huggingface.load_params(folder, np.float32)
    got = logits(Llama(config), params, arrays["tokens"])
    valid = np.arange(got.shape[1]) < arrays["length"][:, None]
    loss, gradients = jax.device_get(loss_and_gradients(Llama(config), params, completions(arrays)))
    found = {
        "logits": got[tuple(arrays["position"].T)],
        "normaliser": jnp.where(valid, jax.nn.logsumexp(got, -1), 0),
        "loss": loss,
    }
    for path, stacked in traverse_util.flatten_dict(gradients).items():
        layers = enumerate(stacked) if path[0] == "layers" else [(None, stacked)]
        for layer, gradient in layers:
            name = huggingface.hf_name(path, layer)
            gradient = gradient.T if path[-1] in ("kernel", "lm_head") else gradient
            found[f"norm/{name}"] = np.linalg.norm(gradient)
            found[f"gradient/{name}"] = sampled(gradient, len(arrays[f"gradient/{name}"]))
    return {name: relative_error(value, arrays[name]) for name, value in found.items()}


def test_float32(golden, errors):
    arrays, folder = golden
    assert errors.keys() == {name for name in arrays if name.split("/")[0] in KINDS}
    wrong = {name: error for name, error in errors.items() if not error < 1e-4}
    assert not wrong
    worst = {kind: max(e for name, e in errors.items() if name.split("/")[0] == kind) for kind in KINDS}
    print(f"\n{folder.name} float32:", ", ".join(f"{kind} {error:.1e}" for kind, error in worst.items()))


def test_bfloat16_is_as_near_as_torch(golden):
    """By KL(float32 || bfloat16) of the next token, mean over valid tokens, nats."""
    arrays, folder = golden
    config, params = huggingface.load_params(folder, np.float32)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    exact = jax.nn.log_softmax(logits(Llama(config), params, arrays["tokens"]))
    rough = jax.nn.log_softmax(logits(Llama(config, dtype=jnp.bfloat16), half, arrays["tokens"]))
    valid = np.arange(exact.shape[1]) < arrays["length"][:, None]
    kl = jnp.sum(jnp.exp(exact) * (exact - rough), -1)[valid].mean()
    print(f"\n{folder.name} bfloat16: KL {kl:.1e}, torch's own {arrays['bfloat16_kl']:.1e}")
    assert 0 < kl < 1.5 * arrays["bfloat16_kl"]


STORY = (
    " Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\nLily"
)


@pytest.fixture(scope="module")
def stories_folder():
    folder = Path(os.environ.get("R2REC_SHARED", "../shared")) / "data" / "weights" / "stories260K-hf"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set R2REC_SHARED to the folder above data/")
    return folder


@pytest.fixture(scope="module")
def stories(stories_folder):
    return np.load(stories_folder / "golden.npz"), *huggingface.load_params(stories_folder, np.float32)


def test_a_real_model(stories, assert_close):
    arrays, config, params = stories
    got = logits(Llama(config), params, arrays["input_ids"][None].astype(np.int32))
    assert_close(got[0], arrays["logits"])


def test_a_real_model_tells_a_story(stories, stories_folder):
    """Greedily, from the begin token, with the whole row computed anew for each token."""
    arrays, config, params = stories
    greedy = arrays["greedy"]
    tokens = np.zeros((1, len(greedy)), np.int32)
    tokens[0, 0] = greedy[0]
    for column in range(1, len(greedy)):
        tokens[0, column] = np.argmax(logits(Llama(config), params, tokens)[0, column - 1])
    np.testing.assert_array_equal(tokens[0], greedy)
    pieces = vocabulary(stories_folder / "tok512.bin")
    text = b"".join(pieces[token] for token in tokens[0, 1:]).replace(b"<0x0A>", b"\n").decode()
    assert text == STORY


def vocabulary(path: Path) -> list[bytes]:
    """Of a llama2.c file: int32, then per token a float32 score, an int32 length and its bytes."""
    data, offset, pieces = path.read_bytes(), 4, []
    while offset < len(data):
        _, length = struct.unpack_from("<fi", data, offset)
        pieces.append(data[offset + 8 : offset + 8 + length])
        offset += 8 + length
    return pieces
