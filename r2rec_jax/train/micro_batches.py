"""Micro-batches: a batch computed in parts, where it does not fit into memory at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from r2rec_jax.runtime.errors import UserError


def check_parts(batch_size: int, parts: int, mesh: Mesh) -> None:
    """Raises UserError unless every part gives each device as many prompts."""
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if parts < 1 or batch_size % (parts * devices):
        raise UserError(
            f"train.batch_size {batch_size} must be a multiple of train.micro_batches {parts} "
            f"x {devices} devices of the data and fsdp axes"
        )


def summed(compute: Callable, batch, parts: int):
    """The sum of `compute(part, index)`, a tree, over `parts` parts of a batch.

    The leaves of `batch` have B prompts or rows of B groups as their first axis; a part has B / parts
    prompts with their rows. Parts are strided: prompt b is in part b % parts, so that each device's
    rows are spread evenly over the parts and none of them moves.
    """
    if parts == 1:
        return compute(batch, 0)

    def of_part(index):
        return compute(_part(batch, parts, index), index)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_part, 0))

    def add(total, index):
        return jax.tree.map(jnp.add, total, of_part(index)), None

    return jax.lax.scan(add, zeros, jnp.arange(parts))[0]


def mapped(compute: Callable, batch, parts: int):
    """`compute(batch)`, an array with a row for every row of the batch, taken part by part."""
    if parts == 1:
        return compute(batch)
    B = _prompts(batch)
    out = jax.lax.map(lambda index: compute(_part(batch, parts, index)), jnp.arange(parts))
    by_prompt = out.reshape(parts, B // parts, -1, *out.shape[2:]).swapaxes(0, 1)
    return by_prompt.reshape(-1, *out.shape[2:])


def _prompts(batch) -> int:
    return min(leaf.shape[0] for leaf in jax.tree.leaves(batch))


def _part(batch, parts: int, index):
    B = _prompts(batch)

    def take(leaf):
        rows = leaf.reshape(B // parts, parts, leaf.shape[0] // B, *leaf.shape[1:])
        return jax.lax.dynamic_index_in_dim(rows, index, axis=1, keepdims=False).reshape(-1, *leaf.shape[1:])

    return jax.tree.map(take, batch)
