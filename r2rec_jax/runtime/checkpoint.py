"""Checkpoints: arrays and JSON of one step, written together, asynchronously and atomically."""

import json
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy

from r2rec_jax.runtime.distributed import fetch
from r2rec_jax.runtime.errors import UserError


class Checkpointer:
    """The last `keep` checkpoints of a run and its best one, one folder a step.

    A step's folder takes its final name only once everything in it is written, so a run killed at
    any moment finds whole checkpoints alone. Several processes of one run write one checkpoint together,
    and call every method alike. Use as a context manager, or call `close`.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self._folder = Path(folder).absolute()  # orbax refuses relative paths
        self._kept = _Kept(keep)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._kept, cleanup_tmp_directories=True
            ),
        )

    def save(self, step: int, state: Any, data: dict, best: int | None = None) -> None:
        """Starts writing; returns once `state` is copied, so its buffers may be donated.

        Args:
          step: steps done. A step that is already there is left alone.
          state: pytree of arrays (named tuples, e.g. optax states, included); PRNG keys as uint32.
          data: JSON-able: iterator state, config, code version.
          best: the step that is kept besides the last ones, if any.
        """
        self._kept.best = best
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(data),
                checksum=ocp.args.JsonSave({"crc32": _crc32(state, data)}),
            ),
            force=True,  # the loop decides when, not orbax's own policy
        )

    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, None before the first."""
        return self._manager.latest_step()

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict]:
        """Reads one step back.

        Args:
          step: one that was saved, usually `latest_step()`.
          abstract_state: pytree of jax.ShapeDtypeStruct (or arrays) of the structure that was
            saved. A leaf's sharding says where it goes, on any mesh; without one, the first device.

        Returns:
          (state, data) as saved; the state's buffers may be donated.

        Raises:
          UserError: there is no such checkpoint, it is damaged, or it holds another model's state.
        """
        where = self._folder / str(step)
        if step not in self._manager.all_steps():
            raise _absent(where)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(jax.tree.map(_abstract, abstract_state)),
                    data=ocp.args.JsonRestore(),
                    checksum=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:  # orbax wraps what it meets in bare Exceptions
            raise _unusable(where, str(error.__cause__ or error)) from error
        if restored.checksum != {"crc32": _crc32(restored.state, restored.data)}:
            raise _unusable(where, "its checksum differs")
        return _rehome(restored.state), restored.data

    def data(self, step: int) -> dict:
        """The JSON of one step, without its state. Raises UserError as `restore` does."""
        if step not in self._manager.all_steps():
            raise _absent(self._folder / str(step))
        try:
            return self._manager.restore(step, args=ocp.args.Composite(data=ocp.args.JsonRestore())).data
        except Exception as error:
            raise _unusable(self._folder / str(step), str(error.__cause__ or error)) from error

    def wait(self) -> None:
        """Blocks until what was saved is on disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then ends the background threads."""
        self._manager.close()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Kept(preservation_policy.PreservationPolicy):
    """The last `latest` steps, and the step `best`."""

    def __init__(self, latest: int):
        self._latest, self.best = latest, None

    def should_preserve(self, checkpoints, *, context):
        del context
        newest = {one.step for one in checkpoints[-self._latest :]}
        return [one.step in newest or one.step == self.best for one in checkpoints]


def _absent(where: Path) -> UserError:
    return UserError(f"no checkpoint at {where}: train first, or name another folder")


def _unusable(where: Path, cause: str) -> UserError:
    return UserError(
        f"checkpoint {where} is damaged or of another config ({cause.splitlines()[0][:200]}): use "
        "the config it was written with, or remove that folder to go on from an earlier step"
    )


def _crc32(state: Any, data: dict) -> int:
    """Checksum of every leaf and of the JSON; orbax alone reads a flipped bit without a word."""
    checksum = zlib.crc32(json.dumps(data).encode())
    for leaf in jax.tree.leaves(state):
        checksum = zlib.crc32(np.asarray(fetch(leaf)).reshape(-1).view(np.uint8), checksum)
    return checksum


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _rehome(state: Any) -> Any:
    """Copies onto buffers that XLA owns: restored ones may belong to the reader, undonatable."""
    # Leaf by leaf: they need not be on the same devices, which is what a program asks for.
    return jax.tree.map(lambda leaf: leaf.copy(), state)
