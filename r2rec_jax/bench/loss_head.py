"""Log-probabilities of tokens under a frozen head, and d hidden, beside two ways of automatic
differentiation: through all logits at once, and through chunks that are computed again."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.bench.result import Row, paired_seconds, row
from r2rec_jax.model.logprobs import token_logprobs

CHUNK = 512


def run(peers: str | None, quick: bool) -> list[Row]:
    del peers  # the peers are written here
    M, D, V = (64, 16, 128) if quick else (4096, 384, 16_000)
    rng = np.random.default_rng(0)
    hidden_MD = jnp.asarray(rng.normal(size=(M, D)), jnp.float32)
    head_DV = jnp.asarray(rng.normal(size=(D, V)) / D**0.5, jnp.float32)
    tokens_M = jnp.asarray(rng.integers(0, V, M), jnp.int32)

    def ours(hidden_MD, head_DV, tokens_M):
        return token_logprobs(hidden_MD, head_DV, tokens_M, jnp.ones(M), chunk=CHUNK)

    rows = []
    for name, peer in [("all logits", _dense), ("recomputed chunks", _recomputed)]:
        compiled = [_gradient(function, hidden_MD, head_DV, tokens_M) for function in (ours, peer)]
        calls = (functools.partial(_finish, function, hidden_MD, head_DV, tokens_M) for function in compiled)
        memory = [[c.memory_analysis().temp_size_in_bytes / 1e6] for c in compiled]
        rows.append(row(f"{M} tokens, against {name}: time", *paired_seconds(*calls), "s"))
        rows.append(row(f"{M} tokens, against {name}: memory", *memory, "MB"))
    return rows


def _dense(hidden_MD, head_DV, tokens_M):
    logits = hidden_MD @ head_DV
    logprobs = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
    return jnp.take_along_axis(logprobs, tokens_M[:, None], axis=-1)[:, 0], jax.lax.stop_gradient(entropy)


def _recomputed(hidden_MD, head_DV, tokens_M):
    chunk = min(CHUNK, len(tokens_M))
    chunks = (hidden_MD.reshape(-1, chunk, hidden_MD.shape[1]), tokens_M.reshape(-1, chunk))
    logprobs, entropy = jax.lax.map(jax.checkpoint(lambda each: _dense(each[0], head_DV, each[1])), chunks)
    return logprobs.reshape(-1), entropy.reshape(-1)


def _gradient(function: Callable, hidden_MD, head_DV, tokens_M):
    def loss(hidden_MD, head_DV, tokens_M):
        logprobs, entropy = function(hidden_MD, head_DV, tokens_M)
        return logprobs.sum(), entropy

    return jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(hidden_MD, head_DV, tokens_M).compile()


def _finish(function: Callable, *arguments) -> None:
    jax.block_until_ready(function(*arguments))
