"""Int8 quantization of the base: each output of a linear kernel has a scale and weights of -127..127."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import traverse_util

SMALLEST = 1e-30  # channels whose largest absolute weight is not above it are treated as zero


def quantize(kernel, axis: int = -2) -> tuple[jax.Array, jax.Array]:
    """Quantizes a kernel [..., in, out] to (int8 of the same shape, scale float32 [..., out]).

    Symmetric, with one scale per output. The error of a weight is at most half its scale, and the largest
    weight of a channel is exact. `axis`: the axis that shares a scale, by default a kernel's inputs.
    """
    kernel = kernel.astype(jnp.float32)
    largest = jnp.max(jnp.abs(kernel), axis=axis)
    # A channel of zeros gets a scale that does not divide by zero. So do tiny channels: without subnormal
    # numbers a device would round their scale to 0 and produce NaN.
    scale = jnp.where(largest > SMALLEST, largest, 1.0) / 127.0
    return jnp.round(kernel / jnp.expand_dims(scale, axis)).astype(jnp.int8), scale


def quantize_params(leaves: Iterable[tuple[tuple[str, ...], jax.Array]], shardings: dict) -> dict:
    """Converts (path, array) pairs of a float Llama to the `params` tree of an int8 Llama.

    Each `kernel` becomes int8 with a `scale`, placed by the tree `shardings`. Only one float kernel exists at
    a time if `leaves` yields them lazily.
    """
    placed, params = traverse_util.flatten_dict(shardings), {}
    for path, leaf in leaves:
        if path[-1] != "kernel":
            params[path] = leaf
            continue
        names = (path, (*path[:-1], "scale"))
        compiled = jax.jit(quantize, out_shardings=tuple(placed[name] for name in names))
        params |= dict(zip(names, jax.block_until_ready(compiled(leaf)), strict=True))
    return traverse_util.unflatten_dict(params)
