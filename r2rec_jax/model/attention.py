"""Grouped-query attention over a row's own keys and what precedes them: shared prompts, a cache."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Prefix:
    """Keys and values of B prompts, each shared by the G rows sampled from it.

    `k`, `v`: [B, K, P, A] inside a layer, [L, B, K, P, A] for the whole model, rotated, right-padded.
    `length`: int32 [B] (or [L, B]), valid tokens of each prompt.
    """

    k: jax.Array
    v: jax.Array
    length: jax.Array


def attend(q_NTHA, k_NKTA, v_NKTA, *pasts: Prefix):
    """softmax(q k^T / sqrt(A)) v, causal among own keys, full over every past's valid keys.

    Args:
      q_NTHA: queries.
      k_NKTA, v_NKTA: the keys and values of the same tokens.
      pasts: what precedes those tokens; of a past with B rows, row n continues row n // (N / B):
        a prompt that G rows share, a cache with one row each.

    Returns:
      [N, T, H, A] in q's dtype; scores and softmax are float32.

    Padding needs no mask of its own: rows are padded on the right, and what padded queries
    return is never read.
    """
    N, T, H, A = q_NTHA.shape
    K = k_NKTA.shape[1]
    q = (q_NTHA * A**-0.5).reshape(N, T, K, H // K, A)

    scores = []
    for past in pasts:
        B, _, P, _ = past.k.shape
        grouped = q.reshape(B, N // B, T, K, H // K, A)
        each = jnp.einsum("bgtkha,bkpa->bgkhtp", grouped, past.k, preferred_element_type=jnp.float32)
        valid_BP = jnp.arange(P) < past.length[:, None]
        each = jnp.where(valid_BP[:, None, None, None, None], each, -jnp.inf)
        scores.append(each.reshape(N, K, H // K, T, P))
    own = jnp.einsum("ntkha,nksa->nkhts", q, k_NKTA, preferred_element_type=jnp.float32)
    scores.append(jnp.where(jnp.tri(T, dtype=bool), own, -jnp.inf))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(q.dtype)

    out = jnp.einsum("nkhts,nksa->ntkha", weights[..., -T:], v_NKTA).reshape(N, T, H, A)
    offset = 0
    for past in pasts:
        B, _, P, _ = past.k.shape
        each = weights[..., offset : offset + P].reshape(B, N // B, K, H // K, T, P)
        out += jnp.einsum("bgkhtp,bkpa->bgtkha", each, past.v).reshape(N, T, H, A)
        offset += P
    return out
