"""One run on several processes: joining it, agreeing in it, and leaving it when something is wrong.

All run the same command, make the same batches and take the same decisions. What is split between them is
what their devices do, by the mesh, and the rewards (`train/reward_runner.py`). So what the host counts is
the same everywhere, and one process, the first, writes it down.
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

HEARTBEAT_S = 40  # without a word from a process that long, the others end
GRACE_S = 5.0  # the first process carries the others' service: it lets them say what went wrong


def join(address: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Makes this process one of `count`; before anything else that asks JAX for a device.

    Args:
      address: HOST:PORT of the first process. None finds all three out, from Slurm, Open MPI, Kubernetes
        or a TPU pod, as jax.distributed.initialize does.

    Raises:
      UserError: nothing tells the arguments, or they cannot be. Where only the others do not come, JAX ends
        this process itself, after 300 s.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=HEARTBEAT_S)
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        remedy = (
            f"look at --coordinator_address={address}, --num_processes={count}, --process_id={index}"
            if address
            else "start it under Slurm, Open MPI or Kubernetes, or add --coordinator_address, "
            "--num_processes and --process_id"
        )
        raise UserError(f"cannot join the other processes ({error}): {remedy}") from error
    for number, handler in handlers.items():  # JAX takes SIGTERM for itself
        signal.signal(number, handler)
    jax.devices()  # here they wait for each other


def is_first() -> bool:
    """Whether this process does what one of them has to, such as writing."""
    return jax.process_index() == 0


def name() -> str:
    """This process in a message, as in process 1 of 4."""
    return f"process {jax.process_index()} of {jax.process_count()}"


def leave(code: int) -> NoReturn:
    """Ends a process in trouble. At an exit in order it would wait for the others, who wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        time.sleep(GRACE_S)
    os._exit(code)


def on_first(act: Callable[[], object]) -> None:
    """Has the first process alone do what is done once; the others wait for it.

    Raises:
      UserError: `act` does; on all processes.
    """
    refusal = ""
    if is_first():
        try:
            act()
        except UserError as error:
            refusal = str(error)
    if refusal := gather(refusal)[0]:
        raise UserError(refusal)


def gather(value: Any) -> list:
    """`value` of every process, something that JSON can say, in the processes' order; all call it at once."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    # Few widths are few compiled programs.
    padded = np.zeros(1 << max(10, int(lengths.max() - 1).bit_length()), np.uint8)
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def fetch(tree: Any) -> Any:
    """A tree of arrays on the host, whole wherever their parts are; all processes call it at once."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


class Vote:
    """Whether any process says yes: asked at every step, and answered at the next so that none waits for it.

    JAX's own notice of preemption listens to SIGTERM alone, and takes it from who wants to stop at once.
    """

    def __init__(self):
        mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
        self._split = NamedSharding(mesh, PartitionSpec("all"))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._asked: jax.Array | None = None

    def __call__(self, yes: bool) -> bool:
        if jax.process_count() == 1:
            return yes
        mine = np.full(jax.local_device_count(), yes)
        answer = self._asked
        self._asked = self._any(jax.make_array_from_process_local_data(self._split, mine))
        return answer is not None and bool(answer)
