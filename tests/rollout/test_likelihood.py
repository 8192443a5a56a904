"""Continuations scored behind a shared prefix against whole rows through the plain forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, head, init_variables
from r2rec_jax.rollout.likelihood import continuation_logprobs
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh

CONFIG = LlamaConfig(53, 20, 28, 2, 4, 2, 6, 1e-5, 1000.0, None, 256, False)
MODEL = Llama(CONFIG, LoRAConfig(2, 4.0))
HOW = {"buckets": (8, 12), "batch_size": 2}


@pytest.fixture(scope="module")
def variables() -> dict:
    found = jax.jit(lambda: init_variables(MODEL, 1))()
    rng = np.random.default_rng(0)
    lora = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), found["lora"])
    return {"params": found["params"], "lora": lora}


def questions(seed=0):
    """Five prefixes of 1 to 12 tokens, three continuations of 1 to 9 each."""
    rng = np.random.default_rng(seed)

    def tokens(longest):
        return rng.integers(0, 53, rng.integers(1, longest + 1)).astype(np.int32)

    prefixes = [tokens(12) for _ in range(4)] + [np.arange(12, dtype=np.int32)]
    return prefixes, [[tokens(9), tokens(9), tokens(2)] for _ in prefixes]


@pytest.fixture(scope="module")
def each(variables):
    """Log-probability of every token of every continuation, by a dense softmax over the whole row."""

    @jax.jit
    def dense(row):
        hidden, _ = MODEL.apply(variables, row[None])
        return jax.nn.log_softmax(hidden[0] @ head(variables["params"]))

    def of(prefix, tokens):
        row = np.zeros(24, np.int32)
        row[: len(prefix) + len(tokens)] = np.concatenate([prefix, tokens])
        places = len(prefix) - 1 + np.arange(len(tokens))
        return np.asarray(dense(jnp.asarray(row)))[places, tokens]

    prefixes, continuations = questions()
    return [[of(p, tokens) for tokens in c] for p, c in zip(prefixes, continuations, strict=True)]


def test_sums_are_those_of_whole_rows(variables, each):
    found = continuation_logprobs(MODEL, variables, *questions(), **HOW)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [[x.sum() for x in row] for row in each], rtol=1e-5)


def test_only_what_counts_is_summed(variables, each):
    counted = [[1, len(row[1]), len(row[2])] for row in each]
    found = continuation_logprobs(MODEL, variables, *questions(), counted=counted, **HOW)
    wanted = [
        [x[-n:].sum() for x, n in zip(row, counts, strict=True)]
        for row, counts in zip(each, counted, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_score_does_not_depend_on_who_else_is_asked(variables):
    prefixes, continuations = questions()
    whole = continuation_logprobs(MODEL, variables, prefixes, continuations, **HOW)
    longest = [tokens for row in continuations for tokens in row if len(tokens) > 8]
    assert longest  # else the padded width would differ below
    kept = [4, 0]
    some = continuation_logprobs(
        MODEL, variables, [prefixes[b] for b in kept], [continuations[b] for b in kept], **HOW
    )
    np.testing.assert_allclose(some, whole[kept], rtol=1e-6)
    on_mesh = continuation_logprobs(MODEL, variables, prefixes, continuations, mesh=make_mesh(1), **HOW)
    np.testing.assert_allclose(on_mesh, whole, rtol=1e-6)


def test_all_first_tokens_make_a_distribution(variables):
    prefixes, _ = questions()
    every = [[np.array([token], np.int32) for token in range(53)]] * len(prefixes)
    found = continuation_logprobs(MODEL, variables, prefixes, every, **HOW)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-5)


def test_what_cannot_be_scored(variables):
    prefixes, continuations = questions()
    with pytest.raises(UserError, match="fits no bucket"):
        continuation_logprobs(MODEL, variables, prefixes, continuations, buckets=(8,), batch_size=2)
    for wrong in ([[prefixes[0][:0]]] * 5, [[prefixes[0]]] * 4, [[prefixes[0]]] * 4 + [[]]):
        with pytest.raises(ValueError, match="has tokens"):
            continuation_logprobs(MODEL, variables, prefixes, wrong, **HOW)
