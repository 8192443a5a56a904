"""A prompt computed once for its group against every completion run as a full row of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, head, init_variables

# (prompts' width, completions a prompt, prompt lengths, remat)
CASES = {
    "one completion": (11, 1, [11, 4, 1], "none"),
    "a group": (11, 4, [11, 4, 1], "block"),
    "prompts of one token": (1, 3, [1, 1], "none"),
}


def make_batch(P, G, prompt_lengths, R=7, seed=0) -> CompletionBatch:
    """Random tokens everywhere, padding included: what stands there must not matter."""
    rng = np.random.default_rng(seed)
    B = len(prompt_lengths)
    lengths = rng.integers(1, R + 1, B * G)
    lengths[0] = R
    return CompletionBatch(
        prompt=rng.integers(0, 53, (B, P)).astype(np.int32),
        prompt_length=np.array(prompt_lengths, np.int32),
        response=rng.integers(0, 53, (B * G, R)).astype(np.int32),
        response_mask=(np.arange(R) < lengths[:, None]).astype(np.float32),
    )


def unshared(model, variables, batch, temperature):
    """Each row prompt + completion through the plain forward, then a dense log_softmax."""
    N, R = batch.response.shape
    G = N // len(batch.prompt)
    rows = np.zeros((N, batch.prompt.shape[1] + R), np.int32)
    for n in range(N):
        length = batch.prompt_length[n // G]
        rows[n, :length] = batch.prompt[n // G, :length]
        rows[n, length : length + R] = batch.response[n]
    hidden, _ = model.apply(variables, rows)
    dense = jax.nn.log_softmax(hidden @ head(variables["params"]) / temperature)
    predicts = np.repeat(batch.prompt_length, G)[:, None] - 1 + np.arange(R)
    dense = dense[np.arange(N)[:, None], predicts]
    entropy = -jnp.sum(jnp.exp(dense) * dense, axis=-1)
    return jnp.take_along_axis(dense, batch.response[..., None], axis=-1)[..., 0], entropy


@pytest.fixture(scope="module")
def variables(config, randomize):
    variables = init_variables(Llama(config, LoRAConfig(2, 4.0)), seed=1)
    return {"params": variables["params"], "lora": randomize(variables["lora"])}


@pytest.mark.parametrize(("P", "G", "prompt_lengths", "remat"), CASES.values(), ids=CASES)
def test_shared_equals_unshared(P, G, prompt_lengths, remat, config, variables, assert_close):
    """Log-probabilities, entropies, and the gradient of every base and adapter leaf."""
    model = Llama(config, LoRAConfig(2, 4.0), remat=remat)
    batch = make_batch(P, G, prompt_lengths)
    weight = batch.response_mask * np.random.default_rng(2).normal(size=batch.response.shape)

    def loss(function, variables):
        logprobs, entropy = function(variables)
        mask = batch.response_mask
        return jnp.sum(logprobs * weight), (logprobs * mask, entropy * mask)

    def shared(variables):
        return completion_logprobs(model, variables, batch, temperature=0.7)

    def plain(variables):
        return unshared(Llama(config, LoRAConfig(2, 4.0)), variables, batch, 0.7)

    grad = jax.jit(jax.grad(loss, argnums=1, has_aux=True), static_argnums=0)
    assert_close(grad(shared, variables), grad(plain, variables))


def test_padding_does_not_matter(config, variables):
    """Other tokens after a prompt's or a completion's end change nothing that is trained on."""
    model = Llama(config, LoRAConfig(2, 4.0))
    batch = make_batch(11, 2, [11, 4, 1])
    other = make_batch(11, 2, [11, 4, 1], seed=9)
    inside = np.arange(11) < batch.prompt_length[:, None]
    noisy = batch.replace(
        prompt=np.where(inside, batch.prompt, other.prompt),
        response=np.where(batch.response_mask > 0, batch.response, other.response),
    )
    run = jax.jit(lambda batch: completion_logprobs(model, variables, batch)[0] * batch.response_mask)
    np.testing.assert_allclose(run(noisy), run(batch), rtol=0, atol=1e-6)
