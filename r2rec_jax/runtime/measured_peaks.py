"""Measures the peak rates of the present device: matrix products for FLOPs, array copies for bandwidth."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

REPEATS = 7
ENOUGH_S = 0.05  # calls of this length make dispatch time negligible
LARGEST_SIDE = 16_384
LARGEST_BYTES = 2 << 30
PASSES = 10


def matmul_flops(dtype: str, enough_s: float = ENOUGH_S) -> float:
    """FLOPs per second of one device in square matrix products of `dtype`; a multiply-add counts as two.

    The side doubles until a product takes `enough_s`. The result is the fastest of REPEATS products.
    """

    def attempt(side: int) -> tuple[float, Callable]:
        a = jax.random.normal(jax.random.key(0), (side, side), dtype)
        return 2.0 * side**3, functools.partial(jax.jit(jnp.matmul), a, a)

    return _rate(attempt, 512, LARGEST_SIDE, enough_s)


def copy_bandwidth(enough_s: float = ENOUGH_S) -> float:
    """Bytes per second that one device reads and writes in an array pass; each element counts twice."""

    def attempt(size: int) -> tuple[float, Callable]:
        x = jnp.ones(size // 4, jnp.float32)
        # All passes run in one call, because fresh memory for each result would cost more than the pass.
        passes = jax.jit(lambda x: jax.lax.fori_loop(0, PASSES, lambda _, x: -x, x))
        return 2.0 * size * PASSES, functools.partial(passes, x)

    return _rate(attempt, 32 << 20, LARGEST_BYTES, enough_s)


def _rate(
    attempt: Callable[[int], tuple[float, Callable]], size: int, largest: int, enough_s: float
) -> float:
    while True:
        amount, call = attempt(size)
        seconds = _fastest(call)
        if seconds >= enough_s or 2 * size > largest:
            return amount / seconds
        size *= 2


def _fastest(call: Callable[[], jax.Array]) -> float:
    jax.block_until_ready(call())
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        best = min(best, time.perf_counter() - start)
    return best
