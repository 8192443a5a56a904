"""Grouped-query attention over a row's own keys and, optionally, a prefix that several rows share."""

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


def attend(q_NTHA, k_NKSA, v_NKSA, query_start, prefix: Prefix | None = None):
    """softmax(q k^T / sqrt(A)) v, causal among own keys, full over the valid prefix.

    Args:
      q_NTHA: queries; the query at column t of row n is its row's token `query_start + t`.
      k_NKSA, v_NKSA: own keys and values; key s is the row's token s. S = T in a full forward,
        the cache length while decoding.
      query_start: scalar or int32 [N].
      prefix: row n continues prompt n // G, where G = N / B.

    Returns:
      [N, T, H, A] in q's dtype; scores and softmax are float32.

    Padding needs no mask of its own: rows are padded on the right, and what padded queries
    return is never read.
    """
    N, T, H, A = q_NTHA.shape
    K, S = k_NKSA.shape[1:3]
    q = (q_NTHA * A**-0.5).reshape(N, T, K, H // K, A)
    own = jnp.einsum("ntkha,nksa->nkhts", q, k_NKSA, preferred_element_type=jnp.float32)
    query_position = jnp.broadcast_to(query_start, (N,))[:, None] + jnp.arange(T)
    visible_NTS = jnp.arange(S) <= query_position[:, :, None]
    own = jnp.where(visible_NTS[:, None, None], own, -jnp.inf)
    if prefix is None:
        weights = jax.nn.softmax(own, axis=-1).astype(q.dtype)
        return jnp.einsum("nkhts,nksa->ntkha", weights, v_NKSA).reshape(N, T, H, A)

    B, _, P, _ = prefix.k.shape
    G = N // B
    q_shared = q.reshape(B, G, T, K, H // K, A)
    shared = jnp.einsum("bgtkha,bkpa->bgkhtp", q_shared, prefix.k, preferred_element_type=jnp.float32)
    valid_BP = jnp.arange(P) < prefix.length[:, None]
    shared = jnp.where(valid_BP[:, None, None, None, None], shared, -jnp.inf).reshape(N, K, H // K, T, P)
    weights = jax.nn.softmax(jnp.concatenate([shared, own], axis=-1), axis=-1).astype(q.dtype)
    from_shared = jnp.einsum(
        "bgkhtp,bkpa->bgtkha", weights[..., :P].reshape(B, G, K, H // K, T, P), prefix.v
    ).reshape(N, T, H, A)
    from_own = jnp.einsum("nkhts,nksa->ntkha", weights[..., P:], v_NKSA).reshape(N, T, H, A)
    return from_shared + from_own
