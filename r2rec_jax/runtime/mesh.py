"""The device mesh, and the table of sharding rules for all arrays.

Three mesh axes: `data` replicates parameters and splits the batch; `fsdp` splits the batch too and
every parameter along its model dimension; `tensor` splits heads, feed-forward and vocabulary.

Parameters are sharded by their logical axes. Activations are sharded where the model calls `constrain`.
Without it, XLA shards them like a parameter's model dimension. `fsdp` then acts as a second tensor axis,
which reduces every product's output instead of gathering weights.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from r2rec_jax.runtime.errors import UserError

AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axis; None replicates. The model dimension is `embed` in stored parameters, and
# `hidden` in activations and gathered parameters.
RULES = (
    ("batch", ("data", "fsdp")),
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("hidden", None),
    ("length", None),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("head_dim", None),
    ("mlp", "tensor"),
    ("norm", None),
    ("lora", None),
    ("layers", None),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh of data x fsdp x tensor devices; data=-1 uses all remaining devices.

    Raises UserError if the available devices do not fit the sizes.
    """
    available = jax.device_count()
    if fsdp < 1 or tensor < 1 or (data < 1 and data != -1):
        raise UserError(f"mesh data={data} fsdp={fsdp} tensor={tensor}: sizes start at 1")
    if data == -1:
        if available % (fsdp * tensor):
            raise UserError(
                f"mesh fsdp={fsdp} x tensor={tensor} does not divide the {available} devices: "
                "choose sizes that do"
            )
        data = available // (fsdp * tensor)
    if data * fsdp * tensor > available:
        raise UserError(
            f"mesh data={data} x fsdp={fsdp} x tensor={tensor} needs {data * fsdp * tensor} "
            f"devices and there are {available}: choose smaller sizes"
        )
    if jax.process_count() > 1 and data * fsdp * tensor < available:
        raise UserError(
            f"mesh data={data} x fsdp={fsdp} x tensor={tensor} leaves devices out of the {available} that "
            f"{jax.process_count()} processes have: choose mesh.data=-1, or start fewer processes"
        )
    return jax.make_mesh((data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def shardings(abstract: Any, mesh: Mesh) -> Any:
    """NamedShardings for a tree whose leaves are boxed by nn.with_logical_partitioning.

    `abstract` comes from jax.eval_shape of the model's init; unboxed leaves are replicated. The
    result has the structure of nn.meta.unbox(abstract).

    Raises:
      ValueError: an axis name that RULES lacks (flax would silently replicate it).
      UserError: a dimension that the mesh does not divide.
    """
    specs = nn.get_partition_spec(abstract)
    known = {name for name, _ in RULES} | {None}
    for path, spec in jax.tree.leaves_with_path(specs, is_leaf=_is_spec):
        if unknown := set(spec or ()) - known:
            raise ValueError(f"{jax.tree_util.keystr(path)}: no rule for logical axes {unknown}")
    placed = nn.logical_to_mesh_sharding(specs, mesh, RULES)
    jax.tree_util.tree_map_with_path(_check_divisible, nn.meta.unbox(abstract), placed)
    return placed


_working_on: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("working_on", default=None)


@contextlib.contextmanager
def working_on(mesh: Mesh | None) -> Iterator[None]:
    """Sets the mesh for code traced inside; without one, `constrain`, `gathered` and `by_rows` do nothing."""
    token = _working_on.set(mesh)
    try:
        yield
    finally:
        _working_on.reset(token)


def constrain(x: jax.Array, *names: str) -> jax.Array:
    """`x` with its dimensions sharded by the RULES of the logical axes `names`.

    Raises ValueError for a name that RULES lacks.
    """
    if unknown := set(names) - {name for name, _ in RULES}:
        raise ValueError(f"no rule for logical axes {unknown}")
    mesh = _working_on.get()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(
        x, nn.logical_to_mesh_sharding(PartitionSpec(*names), mesh, RULES)
    )


def gathered(parameter: jax.Array, *names: str) -> jax.Array:
    """A parameter of logical axes `names`, gathered along `fsdp` for a product with sharded rows."""
    return constrain(parameter, *("hidden" if name == "embed" else name for name in names))


def by_rows(function: Callable, rows: tuple[bool, ...]) -> Callable:
    """`function`, applied on each device to its own rows of the arguments marked in `rows`.

    The other arguments are replicated. Rows are split over `data` and `fsdp` only, and the first axis of
    every output is rows. This is for loops over chunks of rows, which XLA would otherwise run for all
    devices' chunks on every device.
    """
    mesh = _working_on.get()
    if mesh is None:
        return function
    split = PartitionSpec(("data", "fsdp"))
    specs = tuple(split if by_row else PartitionSpec() for by_row in rows)
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=split, axis_names={"data", "fsdp"}, check_vma=False
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: first axis over data and fsdp, other axes replicated."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def to_devices(tree: Any, mesh: Mesh) -> Any:
    """Puts a tree of numpy arrays on the devices, first axis over data and fsdp.

    With several processes, each has the same tree and places the rows of its own devices.
    """
    sharding = batch_sharding(mesh)

    def put(rows):
        return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])

    return jax.tree.map(lambda leaf: put(np.asarray(leaf)), tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding that replicates the array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def _is_spec(value: Any) -> bool:
    return isinstance(value, PartitionSpec)


def _check_divisible(path: tuple, leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> None:
    try:
        sharding.shard_shape(leaf.shape)
    except ValueError as error:
        raise UserError(
            f"parameter {jax.tree_util.keystr(path)} of shape {leaf.shape} cannot be split as "
            f"{sharding.spec} over the mesh {dict(sharding.mesh.shape)}: choose mesh sizes that "
            "divide it"
        ) from error
