"""Log-probabilities of given tokens without a [B, T, V] array."""

import functools

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values


def token_logprobs(hidden_MD, head_DV, tokens_M, mask_M, *, temperature: float = 1.0, chunk: int = 512):
    """log softmax(hidden @ head / temperature)[token] and the entropy of each distribution.

    Args:
      hidden_MD: hidden states, any float dtype; rows are flat tokens.
      head_DV: output projection.
      tokens_M: int32.
      mask_M: rows with 0 are skipped (except in the last chunk) and return 0.
      chunk: largest number of rows of a float32 [chunk, V] slice of logits.

    Returns:
      (logprobs float32 [M], entropy float32 [M]). The entropy has no gradient.

    Each row has a scalar cotangent. The forward pass therefore computes d logprob / d hidden while the logits
    exist, and the backward pass scales it. With a frozen head this takes 4 D V operations per token. If the
    head is differentiated too, its logits are recomputed: 8 D V.
    """
    hidden_MD, head_DV, tokens_M = map(jnp.asarray, (hidden_MD, head_DV, tokens_M))
    M = len(tokens_M)
    chunks = -(-M // chunk)
    size = -(-M // chunks)
    # Unmasked rows come first, so that entire chunks of masked rows are skipped.
    valid_M = mask_M > 0
    count = valid_M.sum()
    place_M = jnp.where(valid_M, jnp.cumsum(valid_M) - 1, count + jnp.cumsum(~valid_M) - 1)
    row_at = jnp.zeros(chunks * size, jnp.int32).at[place_M].set(jnp.arange(M), unique_indices=True)
    order = (row_at.reshape(chunks, size), place_M, valid_M)
    return _token_logprobs(temperature, hidden_MD, head_DV, tokens_M, order)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _token_logprobs(temperature, hidden_MD, head_DV, tokens_M, order):
    def compute(hidden_CD, tokens_C):
        _, logprobs, entropy = _chunk(temperature, hidden_CD, head_DV, tokens_C)
        return logprobs, entropy

    return _scores(*_map(compute, hidden_MD, tokens_M, order), order)


def _save(temperature, hidden, head, tokens, order):
    hidden_MD, head_DV, tokens_M, order = custom_vjp_primal_tree_values((hidden, head, tokens, order))
    if head.perturbed:
        out = _token_logprobs(temperature, hidden_MD, head_DV, tokens_M, order)
        return out, (None, hidden_MD, head_DV, tokens_M, order)

    def compute(hidden_CD, tokens_C):
        d_logits, logprobs, entropy = _chunk(temperature, hidden_CD, head_DV, tokens_C)
        return _times_head(d_logits, head_DV, hidden_CD.dtype), logprobs, entropy

    slope, *out = _map(compute, hidden_MD, tokens_M, order)
    return _scores(*out, order), (slope, None, None, None, order)


def _backward(temperature, saved, cotangents):
    slope, hidden_MD, head_DV, tokens_M, order = saved
    row_at, place_M, valid_M = order
    d_logprobs_M, _ = cotangents
    if isinstance(d_logprobs_M, SymbolicZero):
        d_logprobs_M = jnp.zeros(d_logprobs_M.shape, d_logprobs_M.dtype)
    d_logprobs_M = jnp.where(valid_M, d_logprobs_M, 0.0)
    if slope is not None:
        d_hidden_MD = slope.reshape(-1, slope.shape[-1])[place_M] * d_logprobs_M[:, None]
        return d_hidden_MD.astype(slope.dtype), None, None, None

    # Padding rows of the last chunk have no place, so their weight stays 0.
    weight = jnp.zeros(row_at.size).at[place_M].set(d_logprobs_M, unique_indices=True).reshape(row_at.shape)

    def compute(d_head_DV, rows_C, weight_C):
        hidden_CD = hidden_MD[rows_C]
        d_logits, _, _ = _chunk(temperature, hidden_CD, head_DV, tokens_M[rows_C])
        d_logits *= weight_C[:, None]
        d_head_DV += jnp.einsum(
            "cd,cv->dv", hidden_CD, d_logits.astype(hidden_CD.dtype), preferred_element_type=jnp.float32
        )
        return d_head_DV, _times_head(d_logits, head_DV, hidden_CD.dtype)

    def step(d_head_DV, inputs):
        needed, rows_C, weight_C = inputs
        zeros = jnp.zeros((len(rows_C), hidden_MD.shape[1]), hidden_MD.dtype)
        return jax.lax.cond(needed, compute, lambda total, *_: (total, zeros), d_head_DV, rows_C, weight_C)

    d_head_DV = jnp.zeros(head_DV.shape, jnp.float32)
    d_head_DV, d_hidden = jax.lax.scan(step, d_head_DV, (_needed(order), row_at, weight))
    d_hidden_MD = d_hidden.reshape(-1, d_hidden.shape[-1])[place_M]
    return d_hidden_MD, d_head_DV.astype(head_DV.dtype), None, None


_token_logprobs.defvjp(_save, _backward, symbolic_zeros=True)


def _chunk(temperature, hidden_CD, head_DV, tokens_C):
    """(d logprob / d logits before the temperature, logprobs, entropy) of a chunk of rows, float32."""
    head = head_DV.astype(hidden_CD.dtype)
    logits = jnp.dot(hidden_CD, head, preferred_element_type=jnp.float32) / temperature
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    probabilities = jnp.exp(logits - normaliser[:, None])
    # A masked sum instead of a gather, so that a vocabulary sharded over devices is reduced, not gathered.
    is_token = jnp.arange(logits.shape[1]) == tokens_C[:, None]
    chosen = jnp.sum(jnp.where(is_token, logits, 0.0), axis=-1)
    entropy = normaliser - jnp.sum(probabilities * logits, axis=-1)
    return (is_token - probabilities) / temperature, chosen - normaliser, entropy


def _times_head(d_logits_CV, head_DV, dtype):
    head = head_DV.astype(dtype)
    product = jnp.einsum("cv,dv->cd", d_logits_CV.astype(dtype), head, preferred_element_type=jnp.float32)
    return product.astype(dtype)


def _map(compute, hidden_MD, tokens_M, order):
    """Maps `compute` over chunks of rows and stacks the results, zeros for skipped chunks."""

    def one_chunk(inputs):
        needed, rows_C = inputs
        arguments = hidden_MD[rows_C], tokens_M[rows_C]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute, *arguments))
        return jax.lax.cond(needed, compute, lambda *_: zeros, *arguments)

    return jax.lax.map(one_chunk, (_needed(order), order[0]))


def _needed(order):
    row_at, _, valid_M = order
    chunks, size = row_at.shape
    return jnp.arange(chunks) * size < valid_M.sum()


def _scores(logprobs, entropy, order):
    """Log-probabilities and entropies [M] in the original order of the rows, 0 where masked."""
    _, place_M, valid_M = order
    return tuple(jnp.where(valid_M, x.reshape(-1)[place_M], 0.0) for x in (logprobs, entropy))
