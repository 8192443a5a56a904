"""An int8 base: every output of a linear kernel has one scale, and weights of -127 to 127 of it."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import traverse_util

SMALLEST = 1e-30  # of a channel's largest weight that is told from 0


def quantize(kernel, axis: int = -2) -> tuple[jax.Array, jax.Array]:
    """Rounds a kernel [..., in, out] to (int8 of its shape, scale float32 [..., out]).

    Symmetric, a scale for each output: no weight moves by more than half its scale, and a channel's
    largest, 127 scales, stays. `axis`: what shares a scale, where it is not a kernel's inputs.
    """
    kernel = kernel.astype(jnp.float32)
    largest = jnp.max(jnp.abs(kernel), axis=axis)
    # Zeros are zeros under any scale; this one can divide. A device that has no subnormal numbers would make
    # a scale of 0 of what is as small, and NaN of its weights.
    scale = jnp.where(largest > SMALLEST, largest, 1.0) / 127.0
    return jnp.round(kernel / jnp.expand_dims(scale, axis)).astype(jnp.int8), scale


def quantize_params(leaves: Iterable[tuple[tuple[str, ...], jax.Array]], shardings: dict) -> dict:
    """The `params` tree of an int8 Llama from the (path, array) of a float one.

    Every `kernel` becomes an int8 one with a `scale`, placed as the tree `shardings` says; one float
    kernel is alive at a time where `leaves` makes them one by one.
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
