"""The choice of the next token: temperature, truncation, one random key a row."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

BITS_OF_ONE = 0x3F800000  # float32 1.0; non-negative floats order as their bits do


def sample(
    logits_NV, keys_N, *, temperature: float, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0
) -> jax.Array:
    """Draws one index a row, int32 [N].

    Args:
      logits_NV: any float dtype; -inf is never drawn.
      keys_N: typed PRNG keys, one a row, so that a row's draw ignores its neighbours.
      temperature: 0 takes the most likely token and ignores the keys and what follows.
      top_k: draws come from the k likeliest tokens; 0 keeps all. Ties stay in.
      top_p: then from the fewest of these whose mass reaches it (Holtzman et al. 2020); 1 keeps all.
      min_p: then from those at least that fraction as likely as the likeliest (Nguyen et al. 2024).
    """
    logits = logits_NV.astype(jnp.float32)
    if temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    weight_NV = jnp.exp((logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature)
    if 0 < top_k < logits.shape[-1]:
        weight_NV = largest(weight_NV, top_k)
    if top_p < 1:
        weight_NV = nucleus(weight_NV, top_p)
    if min_p > 0:
        weight_NV = jnp.where(weight_NV >= min_p, weight_NV, 0.0)
    return draw(weight_NV, keys_N).astype(jnp.int32)


def logprob(logits_NV, token_N, temperature: float) -> jax.Array:
    """Log-probability of a token a row, float32 [N], under softmax(logits / temperature).

    Of the whole distribution, whatever was cut off before the draw: what a trainer recomputes. A
    temperature of 0 counts as 1.
    """
    logits = logits_NV.astype(jnp.float32) / (temperature or 1.0)
    chosen = jnp.take_along_axis(logits, token_N[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


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
    """The weights (float32, at most 1), zero outside each row's nucleus; its last one's equals stay in."""
    enough_N1 = top_p * jnp.sum(weight_NV, axis=-1, keepdims=True)
    return _fewest(weight_NV, lambda kept: jnp.where(kept, weight_NV, 0.0), enough_N1)


def largest(weight_NV, k: int):
    """The weights (float32, at most 1), zero but for each row's k largest and their last one's equals."""
    enough_N1 = jnp.full((len(weight_NV), 1), k, jnp.float32)
    return _fewest(weight_NV, lambda kept: kept.astype(jnp.float32), enough_N1)


def _fewest(weight_NV, counted: Callable, enough_N1):
    """The weights, zero but for the fewest largest of them for which `counted` sums to enough.

    Bisects for the threshold over the bits of a float, exact in 30 steps, where a sort costs 20 times
    as much on CPU.
    """
    bits_NV = jax.lax.bitcast_convert_type(weight_NV, jnp.int32)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        reached = jnp.sum(counted(bits_NV >= middle), axis=-1, keepdims=True) >= enough_N1
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    # What is counted at bits >= low is always enough, at bits >= high never.
    low = jnp.zeros_like(enough_N1, jnp.int32)
    low, _ = jax.lax.fori_loop(0, 30, halve, (low, jnp.full_like(low, BITS_OF_ONE + 1)))
    return jnp.where(bits_NV >= low, weight_NV, 0.0)
