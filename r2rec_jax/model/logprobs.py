"""Log-probabilities of chosen tokens without ever holding a [B, T, V] array."""

import jax
import jax.numpy as jnp


def token_logprobs(hidden_MD, head_DV, tokens_M, *, temperature: float = 1.0, chunk: int = 1024):
    """log softmax(hidden @ head / temperature)[token] and the entropy of each distribution.

    Args:
      hidden_MD: hidden states, any float dtype; rows are flat tokens.
      head_DV: output projection.
      tokens_M: int32.
      chunk: rows per [chunk, V] slice of logits; recomputed in the backward pass.

    Returns:
      (logprobs float32 [M], entropy float32 [M]); the entropy carries no gradient.
    """
    M = tokens_M.shape[0]
    chunks = -(-M // chunk)
    pad = chunks * chunk - M

    @jax.checkpoint
    def one_chunk(inputs):
        hidden_CD, tokens_C = inputs
        logits = (hidden_CD @ head_DV.astype(hidden_CD.dtype)).astype(jnp.float32) / temperature
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, tokens_C[:, None], axis=-1)[:, 0]
        probabilities = jax.nn.softmax(jax.lax.stop_gradient(logits), axis=-1)
        entropy = jax.lax.stop_gradient(normaliser) - jnp.sum(
            probabilities * jax.lax.stop_gradient(logits), axis=-1
        )
        return chosen - normaliser, entropy

    if chunks == 1:
        return one_chunk((hidden_MD, tokens_M))
    hidden = jnp.pad(hidden_MD, ((0, pad), (0, 0))).reshape(chunks, chunk, -1)
    tokens = jnp.pad(tokens_M, (0, pad)).reshape(chunks, chunk)
    logprobs, entropy = jax.lax.map(one_chunk, (hidden, tokens))
    return logprobs.reshape(-1)[:M], entropy.reshape(-1)[:M]
