"""Decoding through the cache, token by token, against the full forward."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import meta

from r2rec_jax.model.attention import Prefix, attend
from r2rec_jax.model.completion import prefill
from r2rec_jax.model.llama import Cache, Llama, abstract_variables, head, init_variables


def test_decoding_over_a_shared_prompt_equals_the_full_forward(config, assert_close):
    model = Llama(config)
    variables = init_variables(model, seed=0)
    rng = np.random.default_rng(0)
    lengths, P, G, R = np.array([9, 5]), 9, 3, 6
    N = 2 * G
    prompt = rng.integers(0, 53, (2, P)).astype(np.int32)
    response = rng.integers(0, 53, (N, R)).astype(np.int32)
    prefix, last = prefill(model, variables, prompt, lengths)
    shape = (config.num_hidden_layers, N, config.num_key_value_heads, R, config.head_dim)
    cache = Cache(*jnp.zeros((2, *shape)), jnp.zeros(config.num_hidden_layers, jnp.int32))
    start = np.repeat(lengths - 1, G)

    @jax.jit
    def step(tokens, column, cache):
        hidden, kv = model.apply(variables, tokens[:, None], start + column, prefix, cache)
        return hidden, cache.append(*kv)

    decoded = []
    for column in range(R):
        tokens = response[:, column - 1] if column else np.repeat(last, G)
        hidden, cache = step(tokens, column, cache)
        decoded.append(hidden[:, 0])

    rows = np.zeros((N, P + R), np.int32)
    for n in range(N):
        length = lengths[n // G]
        rows[n, :length] = prompt[n // G, :length]
        rows[n, length : length + R] = response[n]
    full, _ = jax.jit(model.apply)(variables, rows)
    assert_close(np.stack(decoded, 1), full[np.arange(N)[:, None], start[:, None] + np.arange(R)])


def test_attention_against_loops():
    """One query at a time in numpy, over the prefix's valid keys and the row's own past."""
    rng = np.random.default_rng(0)
    B, G, P, T, H, K, A = 2, 2, 4, 3, 4, 2, 5
    q = rng.normal(size=(B * G, T, H, A)).astype(np.float32)
    k, v = rng.normal(size=(2, B * G, K, T, A)).astype(np.float32)
    prefix_k, prefix_v = rng.normal(size=(2, B, K, P, A)).astype(np.float32)
    length = np.array([4, 0])
    got = attend(q, k, v, Prefix(prefix_k, prefix_v, length))
    for n, t, h in np.ndindex(B * G, T, H):
        b, group = n // G, h // (H // K)
        keys = np.concatenate([prefix_k[b, group, : length[b]], k[n, group, : t + 1]])
        values = np.concatenate([prefix_v[b, group, : length[b]], v[n, group, : t + 1]])
        weights = np.exp(keys @ q[n, t, h] / np.sqrt(A))
        expected = weights @ values / weights.sum()
        np.testing.assert_allclose(got[n, t, h], expected, rtol=1e-4, atol=1e-5)


def test_abstract_variables_are_the_real_ones(config):
    model = Llama(config)
    abstract = meta.unbox(abstract_variables(model))
    real = init_variables(model, seed=0)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(
        lambda x: (x.shape, x.dtype), real
    )


def test_head_of_a_tied_model_is_the_embedding(config):
    tied = dataclasses.replace(config, tie_word_embeddings=True)
    params = init_variables(Llama(tied), seed=0)["params"]
    assert "lm_head" not in params
    np.testing.assert_array_equal(head(params), params["embed_tokens"].T)
