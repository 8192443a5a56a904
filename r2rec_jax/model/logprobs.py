"""Log-probabilities of chosen tokens without ever holding a [B, T, V] array."""

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
      mask_M: rows where it is 0 cost nothing (but for the rest of one chunk) and give 0.
      chunk: most rows of a [chunk, V] slice of logits, which are float32.

    Returns:
      (logprobs float32 [M], entropy float32 [M]); the entropy carries no gradient.

    Each row has one scalar cotangent, so d logprob / d hidden can be computed in the forward pass, while
    the logits are at hand, and scaled in the backward pass: 4 D V operations a token with a frozen head.
    A head that is differentiated as well has its logits computed again: 8 D V.
    """
    hidden_MD, head_DV, tokens_M = map(jnp.asarray, (hidden_MD, head_DV, tokens_M))
    M = len(tokens_M)
    chunks = -(-M // chunk)
    size = -(-M // chunks)
    # Rows that count come first, so that whole chunks of others are left out.
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

    # Rows that pad the last chunk have no place, so nothing is set for them.
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
        nothing = jnp.zeros((len(rows_C), hidden_MD.shape[1]), hidden_MD.dtype)
        return jax.lax.cond(needed, compute, lambda total, *_: (total, nothing), d_head_DV, rows_C, weight_C)

    d_head_DV = jnp.zeros(head_DV.shape, jnp.float32)
    d_head_DV, d_hidden = jax.lax.scan(step, d_head_DV, (_needed(order), row_at, weight))
    d_hidden_MD = d_hidden.reshape(-1, d_hidden.shape[-1])[place_M]
    return d_hidden_MD, d_head_DV.astype(head_DV.dtype), None, None


_token_logprobs.defvjp(_save, _backward, symbolic_zeros=True)


def _chunk(temperature, hidden_CD, head_DV, tokens_C):
    """(d logprob / d logits before the temperature, logprobs, entropy), float32, of rows at once."""
    head = head_DV.astype(hidden_CD.dtype)
    logits = jnp.dot(hidden_CD, head, preferred_element_type=jnp.float32) / temperature
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    probabilities = jnp.exp(logits - normaliser[:, None])
    # Sums over the vocabulary, not a gather: a vocabulary split over devices is summed, never collected.
    is_token = jnp.arange(logits.shape[1]) == tokens_C[:, None]
    chosen = jnp.sum(jnp.where(is_token, logits, 0.0), axis=-1)
    entropy = normaliser - jnp.sum(probabilities * logits, axis=-1)
    return (is_token - probabilities) / temperature, chosen - normaliser, entropy


def _times_head(d_logits_CV, head_DV, dtype):
    head = head_DV.astype(dtype)
    product = jnp.einsum("cv,dv->cd", d_logits_CV.astype(dtype), head, preferred_element_type=jnp.float32)
    return product.astype(dtype)


def _map(compute, hidden_MD, tokens_M, order):
    """`compute` over chunks of rows in order, its results stacked; zeros for chunks not needed."""

    def one_chunk(inputs):
        needed, rows_C = inputs
        arguments = hidden_MD[rows_C], tokens_M[rows_C]
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute, *arguments))
        return jax.lax.cond(needed, compute, lambda *_: nothing, *arguments)

    return jax.lax.map(one_chunk, (_needed(order), order[0]))


def _needed(order):
    row_at, _, valid_M = order
    chunks, size = row_at.shape
    return jnp.arange(chunks) * size < valid_M.sum()


def _scores(logprobs, entropy, order):
    """Both as [M], in the rows' own order."""
    _, place_M, valid_M = order
    return tuple(jnp.where(valid_M, x.reshape(-1)[place_M], 0.0) for x in (logprobs, entropy))
