"""The choice of the next token: temperature, nucleus (top-p) truncation, one random key a row."""

import jax
import jax.numpy as jnp

BITS_OF_ONE = 0x3F800000  # float32 1.0; non-negative floats order as their bits do


def sample(logits_NV, keys_N, *, temperature: float, top_p: float):
    """Draws one token a row.

    Args:
      logits_NV: any float dtype.
      keys_N: typed PRNG keys, one a row, so that a row's draw ignores its neighbours.
      temperature: 0 takes the most likely token and ignores the keys and `top_p`.
      top_p: draws come from the fewest tokens whose mass reaches it (Holtzman et al. 2020);
        1 keeps all.

    Returns:
      (token int32 [N], logprob float32 [N]). The log-probability is that of the untruncated
      softmax(logits / temperature), which is what a trainer recomputes; greedy records
      temperature 1.
    """
    logits = logits_NV.astype(jnp.float32) / (temperature or 1.0)
    if temperature == 0:
        token = jnp.argmax(logits, axis=-1)
    else:
        weight_NV = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
        token = draw(weight_NV if top_p >= 1 else nucleus(weight_NV, top_p), keys_N)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return token.astype(jnp.int32), chosen - jax.nn.logsumexp(logits, axis=-1)


def draw(weight_NV, keys_N):
    """One index a row, in proportion to the weights, int32 [N]; never one of weight zero.

    Inverts the cumulative sum with one uniform number a row: Gumbel noise would take V of them,
    a fifth of a small model's decoding time on CPU.
    """
    uniform_N1 = jax.vmap(jax.random.uniform)(keys_N)[:, None]
    # A parallel sum may step down by a rounding error; zeroing keeps that from a weightless token.
    mass_NV = jnp.where(weight_NV > 0, jnp.cumsum(weight_NV, axis=-1), 0.0)
    return jnp.argmax(mass_NV > uniform_N1 * jnp.max(mass_NV, axis=-1, keepdims=True), axis=-1)


def nucleus(weight_NV, top_p: float):
    """The weights (float32, at most 1), zero outside each row's nucleus.

    Tokens exactly as likely as its last one stay in. Bisects for the threshold over the bits of
    a float, exact in 30 steps, where a sort costs 20 times as much on CPU.
    """
    bits_NV = jax.lax.bitcast_convert_type(weight_NV, jnp.int32)
    enough_N1 = top_p * jnp.sum(weight_NV, axis=-1, keepdims=True)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        mass = jnp.sum(jnp.where(bits_NV >= middle, weight_NV, 0.0), axis=-1, keepdims=True)
        reached = mass >= enough_N1
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    # The weights of bits >= low always reach the mass, those of bits >= high never do.
    low = jnp.zeros_like(enough_N1, jnp.int32)
    low, _ = jax.lax.fori_loop(0, 30, halve, (low, jnp.full_like(low, BITS_OF_ONE + 1)))
    return jnp.where(bits_NV >= low, weight_NV, 0.0)
