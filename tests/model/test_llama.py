"""Decoding through the cache against the full forward; recomputation against none."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import meta

from r2rec_jax.model.attention import Prefix
from r2rec_jax.model.completion import prefill
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import (
    REMAT,
    Llama,
    abstract_variables,
    head,
    init_variables,
    layer_name,
    remat_policy,
)
from r2rec_jax.runtime.errors import UserError


def test_an_unrolled_model_over_two_pasts_equals_the_full_forward(config, assert_close):
    """A shared prompt, then a part of each row's response, then the rest of it."""
    model = Llama(config)
    variables = init_variables(model, seed=0)
    unrolled = model.clone(unrolled=True)
    layers = {name: leaf for name, leaf in variables["params"].items() if name != "layers"}
    for number in range(config.num_hidden_layers):
        stacked = variables["params"]["layers"]
        layers[layer_name(number)] = jax.tree.map(lambda leaf, at=number: leaf[at], stacked)
    rng = np.random.default_rng(0)
    lengths, P, G, R = np.array([9, 5]), 9, 3, 6
    N = 2 * G
    prompt = rng.integers(0, 53, (2, P)).astype(np.int32)
    response = rng.integers(0, 53, (N, R)).astype(np.int32)
    prefix, last = prefill(unrolled, {"params": layers}, prompt, lengths)
    start = np.repeat(lengths - 1, G)
    inputs = np.concatenate([np.repeat(last, G)[:, None], response[:, :-1]], axis=1)

    @jax.jit
    def run(tokens, start, *pasts):
        return unrolled.apply({"params": layers}, tokens, start, *pasts)

    # Rows of different lengths: what a padded part leaves behind is not looked at.
    early, own = np.array([4, 2, 3, 4, 1, 2]), []
    first, (k, v) = run(inputs[:, :4], start, prefix)
    rest = np.stack([np.resize(inputs[n, early[n] :], 3) for n in range(N)])
    second, _ = run(rest, start + early, prefix, Prefix(k, v, early))
    for n in range(N):
        own.append(np.concatenate([first[n, : early[n]], second[n]])[: early[n] + 2])

    # One token more, written into a cache with room for it before it is read.
    room = [(0, 0), (0, 0), (0, 2), (0, 0)]
    cache = Prefix(*(tuple(jnp.pad(x, room) for x in layers_of) for layers_of in (k, v)), early)
    one, written = jax.jit(partial(unrolled.apply, {"params": layers}))(
        rest[:, :1], start + early, prefix, cache=cache
    )
    assert_close(one, second[:, :1])
    assert [layer.k.shape for layer in written] == [cache.k[0].shape] * config.num_hidden_layers

    rows = np.zeros((N, P + R), np.int32)
    for n in range(N):
        length = lengths[n // G]
        rows[n, :length] = prompt[n // G, :length]
        rows[n, length : length + R] = response[n]
    full, _ = jax.jit(model.apply)(variables, rows)
    for n in range(N):
        assert_close(own[n], full[n, start[n] : start[n] + early[n] + 2])


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


@pytest.mark.slow
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
