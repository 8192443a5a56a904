"""Decoding through the cache against the full forward; recomputation against none."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import meta

from r2rec_jax.model.completion import prefill
from r2rec_jax.model.llama import (
    REMAT,
    Cache,
    Llama,
    abstract_variables,
    head,
    init_variables,
    remat_policy,
)
from r2rec_jax.model.lora import LoRAConfig
from r2rec_jax.runtime.errors import UserError


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


def loss_and_gradients(config, remat):
    """A traced loss over a prefix with the gradients of every leaf, and its argument."""
    model = Llama(config, LoRAConfig(2, 4.0), remat=remat)
    variables = init_variables(model, seed=0)
    rng = np.random.default_rng(0)
    prompt, rows = (rng.integers(0, 53, shape).astype(np.int32) for shape in [(2, 32), (4, 64)])

    def loss(variables):
        prefix, _ = prefill(model, variables, prompt, np.array([32, 20]))
        hidden, _ = model.apply(variables, rows, np.repeat([31, 19], 2), prefix)
        return jnp.sum(jnp.sin(hidden))

    return jax.jit(jax.value_and_grad(loss)).trace(variables), variables


def test_what_is_recomputed_changes_memory_and_nothing_else(config, assert_close):
    deep = dataclasses.replace(config, num_hidden_layers=6)
    bytes_of, results = {}, {}
    for remat in REMAT:
        traced, variables = loss_and_gradients(deep, remat)
        # Host and device are one memory here, so the program is all there is to see of it.
        assert ("Host" in str(traced.jaxpr)) == (remat == "offload")
        compiled = traced.lower().compile()
        bytes_of[remat] = compiled.memory_analysis().temp_size_in_bytes
        results[remat] = compiled(variables)
        assert_close(results[remat], results["none"], rtol=1e-5)
    assert bytes_of["none"] > 1.1 * bytes_of["dots"] > 1.5 * bytes_of["block"]


def test_recomputation_that_cannot_be_had(monkeypatch):
    with pytest.raises(UserError, match="unknown: use one of none, dots, block, offload"):
        remat_policy("full")
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(addressable_memories=list)])
    with pytest.raises(UserError, match=r"use model\.remat=block"):
        remat_policy("offload")


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
