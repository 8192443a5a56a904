"""What the device at hand can do at best, measured: a matrix product for arithmetic, a pass over an array
for memory."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

REPEATS = 7
ENOUGH_S = 0.05  # a call that long hides the cost of starting it
LARGEST_SIDE = 16_384
LARGEST_BYTES = 2 << 30
PASSES = 10


def matmul_flops(dtype: str, enough_s: float = ENOUGH_S) -> float:
    """FLOPs a second of one device in square products of `dtype`, a multiply-add counted as two.

    The side doubles until a product takes `enough_s`; of that size the fastest of a few counts, as for a
    ceiling it should.
    """

    def attempt(side: int) -> tuple[float, Callable]:
        a = jax.random.normal(jax.random.key(0), (side, side), dtype)
        return 2.0 * side**3, functools.partial(jax.jit(jnp.matmul), a, a)

    return _rate(attempt, 512, LARGEST_SIDE, enough_s)


def copy_bandwidth(enough_s: float = ENOUGH_S) -> float:
    """Bytes a second that one device reads and writes in passing over an array: each element counts twice."""

    def attempt(size: int) -> tuple[float, Callable]:
        x = jnp.ones(size // 4, jnp.float32)
        # Passes within one call: the memory of a call's result may be new, and then costs more than the pass.
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
