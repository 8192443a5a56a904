"""Runs with several processes: joining, exchanging values, and leaving after an error.

All processes run the same command, make the same batches and take the same decisions. The mesh shards the
work of their devices, and `train/reward_runner.py` shards the rewards. Host-side metrics are therefore equal
in all processes, and only the first process writes them.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from r2rec_jax.runtime.errors import UserError

HEARTBEAT_S = 40  # the run ends if a process sends no heartbeat for this time
GRACE_S = 5.0  # the first process hosts the coordination service and exits last


def join(address: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Joins this process to a run of `count` processes; call it before any use of a JAX device.

    Args:
      address: HOST:PORT of the first process. If None, jax.distributed.initialize finds all three arguments
        from Slurm, Open MPI, Kubernetes or a TPU pod.

    Raises:
      UserError: the arguments cannot be found or are invalid. If other processes do not join, JAX ends this
        process after 300 s.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=HEARTBEAT_S)
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        remedy = (
            f"check --coordinator_address={address}, --num_processes={count}, --process_id={index}"
            if address
            else "start it under Slurm, Open MPI or Kubernetes, or add --coordinator_address, "
            "--num_processes and --process_id"
        )
        raise UserError(f"cannot join the other processes ({error}): {remedy}") from error
    for number, handler in handlers.items():  # restores SIGTERM, which JAX handles
        signal.signal(number, handler)
    jax.devices()  # waits for the other processes


def is_first() -> bool:
    """Whether this process does the work of a single process, such as writing files."""
    return jax.process_index() == 0


def name() -> str:
    """The name of this process in messages, e.g. "process 1 of 4"."""
    return f"process {jax.process_index()} of {jax.process_count()}"


def leave(code: int) -> NoReturn:
    """Exits after an error at once. An orderly exit would wait for the other processes, which wait for this
    one."""
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        time.sleep(GRACE_S)
    os._exit(code)


def on_first(act: Callable[[], object]) -> None:
    """Calls `act` in the first process only; the others wait for it.

    Raises:
      UserError: `act` raised it; all processes raise it.
    """
    failure = ""
    if is_first():
        try:
            act()
        except UserError as error:
            failure = str(error)
    if failure := gather(failure)[0]:
        raise UserError(failure)


def gather(value: Any) -> list:
    """The JSON-able `value` of every process, in the order of processes; all processes must call it."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    # Powers of two, so that few programs are compiled.
    padded = np.zeros(1 << max(10, int(lengths.max() - 1).bit_length()), np.uint8)
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def fetch(tree: Any) -> Any:
    """A tree of complete arrays on the host, gathered from all devices; all processes must call it."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


class Vote:
    """Whether any process votes yes. A call returns the result of the previous call, so that no step waits.

    JAX's own preemption notice handles only SIGTERM, and hides it from handlers that stop at once.
    """

    def __init__(self):
        mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
        self._split = NamedSharding(mesh, PartitionSpec("all"))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._result: jax.Array | None = None

    def __call__(self, yes: bool) -> bool:
        if jax.process_count() == 1:
            return yes
        mine = np.full(jax.local_device_count(), yes)
        previous = self._result
        self._result = self._any(jax.make_array_from_process_local_data(self._split, mine))
        return previous is not None and bool(previous)
