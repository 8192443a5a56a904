"""Checkpoints: arrays and JSON of one step, written together, asynchronously and atomically."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy

from r2rec_jax.runtime import checksum
from r2rec_jax.runtime.config_diff import drift, first
from r2rec_jax.runtime.distributed import gather
from r2rec_jax.runtime.errors import UserError, disk_fault
from r2rec_jax.runtime.library_workarounds import own_buffers, probe_folder


class Checkpointer:
    """The last `keep` checkpoints of a run and its best one, one folder a step.

    A step's folder takes its final name only once everything in it is written, so a run killed at
    any moment finds whole checkpoints alone. Checksums tell one that was damaged since. Use as a context
    manager, or call `close`. Several processes of one run make the same calls, and where one cannot read a
    checkpoint, none does.
    """

    def __init__(self, folder: str | Path, keep: int = 2, read_only: bool = False):
        """`read_only`: nothing is changed in the folder, where a run may be at work."""
        self._folder = Path(folder).absolute()  # orbax refuses relative paths
        self._kept = _Kept(keep)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._kept,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                lightweight_initialize=True,  # else one damaged folder keeps all from being listed
            ),
        )
        # Reads alone: the manager would wait for the other processes, and one that finds damage never comes.
        alone = jax.process_index()
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(),
            multiprocessing_options=ocp.options.MultiprocessingOptions(alone, active_processes={alone}),
        )

    def save(self, step: int, state: Any, data: dict, best: int | None = None) -> None:
        """Starts writing; returns once `state` is copied, so its buffers may be donated.

        Args:
          step: steps done. A step that is already there is left alone.
          state: pytree of arrays (named tuples, e.g. optax states, included); PRNG keys as uint32.
          data: JSON-able: iterator state, config, code version.
          best: the step that is kept besides the last ones, if any.

        Raises:
          UserError: the disk refused this checkpoint or the one before it; older ones are as they were.
        """
        self._kept.best = best
        if step in self._manager.all_steps():
            return
        with self._writing():
            probe_folder(self._folder, str(jax.process_index()))
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    data=ocp.args.JsonSave(data),
                    checksum=ocp.args.JsonSave(checksum.describe(state, data)),
                ),
                force=True,  # the loop decides when, not orbax's own policy
            )

    def clear_old(self, best: int | None = None) -> None:
        """Deletes what `save` would not keep: a killed run may have left some of it, or parts."""
        steps = sorted(self._manager.all_steps())
        for step in steps:
            if step not in self._kept.of(steps, best):
                self._manager.delete(step)

    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, None before the first."""
        return self._manager.latest_step()

    def resume(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
        """Reads the newest checkpoint that is not damaged; None before the first.

        Damaged ones after it are renamed, "7" to "damaged-7", and a warning names them.

        Args:
          abstract_state: as for `restore`.

        Returns:
          (step, state, data).

        Raises:
          UserError: as `restore`, but for damage; or all of them are damaged: then nothing is renamed.
        """
        damaged: dict[int, str] = {}
        for step in sorted(set().union(*gather(list(self._manager.all_steps()))), reverse=True):
            try:
                state, data = self.restore(step, abstract_state)
            except _Damaged as error:
                damaged[step] = error.brief
                continue
            if damaged:
                self._set_aside(list(damaged))
                logging.warning("%s and set aside; going on from step %d", "; ".join(damaged.values()), step)
            return step, state, data
        if damaged:
            raise UserError(
                f"no checkpoint in {self._folder} is whole: {'; '.join(damaged.values())}. Put a "
                "whole one there, or begin anew with --overwrite"
            )
        return None

    def restore(self, step: int, abstract_state: Any, config: dict | None = None) -> tuple[Any, dict]:
        """Reads one step back.

        Args:
          step: one that was saved, usually `latest_step()`.
          abstract_state: pytree of jax.ShapeDtypeStruct (or arrays) of the structure that was
            saved. A leaf's sharding says where it goes, on any mesh; without one, the first device.
          config: sections of the reader's config. Where the state does not fit, the fields are named in
            which the "config" of the step's data differs.

        Returns:
          (state, data) as saved; the state's buffers may be donated.

        Raises:
          UserError: there is no such checkpoint, it is damaged, or it holds another model's state or is of
            another version.
        """
        where, abstract = self._folder / str(step), jax.tree.map(_abstract, abstract_state)
        self.wait()  # it may be on its way

        def read() -> tuple[int, Any, dict]:
            described, data = self._described(step), self._data(step)
            if described["leaves"] != checksum.leaves(abstract_state):
                raise _other(where, described["leaves"], checksum.leaves(abstract_state), data, config)
            return described["state"], self._read(step, state=ocp.args.StandardRestore(abstract)), data

        wanted, state, data = _together(read)
        found = checksum.of_arrays(state)

        def compare() -> None:
            if found != wanted:
                raise _Damaged(where, "the checksum of its arrays differs")

        _together(compare)
        return own_buffers(state), data

    def data(self, step: int) -> dict:
        """The JSON of one step, without its state. Raises UserError as `restore` does."""
        self.wait()
        return _together(lambda: self._data(step))

    def wait(self) -> None:
        """Blocks until what was saved is on disk; raises what went wrong in the background, as `save`."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then ends the background threads."""
        self._reader.close()
        with self._writing():
            self._manager.close()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind, *_: object) -> None:
        # What went wrong in the block is told; that the last checkpoint was not written either is not.
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # tensorstore's are of several kinds
            fault = disk_fault(error)
            if not fault:
                raise
            newest = self.latest_step()
            good = "none was written before" if newest is None else f"that of step {newest} is good"
            raise UserError(
                f"a checkpoint could not be written to {self._folder} ({fault}); {good}: make room there, or "
                "make it writable, and run the same command again"
            ) from error

    def _described(self, step: int) -> dict:
        """What was saved of step's leaves and checksums, once it is known to be whole and of this version."""
        where = self._folder / str(step)
        if step not in self._manager.all_steps():
            raise UserError(f"no checkpoint at {where}: train first, or name another folder")
        described = self._read(step, checksum=ocp.args.JsonRestore())
        if isinstance(described, dict) and described.keys() == {"crc32"}:
            raise _of_version(where, 0)  # from before it was written down
        own = described.pop("own", None) if isinstance(described, dict) else None
        if own is None or own != checksum.of_json(described):
            raise _Damaged(where, "the file of its checksums is not as it was written")
        if described["format"] != checksum.FORMAT:
            raise _of_version(where, described["format"])
        return described

    def _data(self, step: int) -> dict:
        described, data = self._described(step), self._read(step, data=ocp.args.JsonRestore())
        if described["data"] != checksum.of_json(data):
            raise _Damaged(self._folder / str(step), "the checksum of its data differs")
        return data

    def _read(self, step: int, **item: ocp.args.CheckpointArgs) -> Any:
        """One item of a step."""
        where, (name,) = self._folder / str(step), item
        try:
            return self._reader.restore(where, args=ocp.args.Composite(**item))[name]
        except Exception as error:  # orbax wraps what it meets in bare Exceptions
            if fault := disk_fault(error):
                raise UserError(
                    f"checkpoint {where} cannot be read ({fault}): make it readable and run the same command "
                    "again"
                ) from error
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise
            cause = str(error.__cause__ or error).splitlines() or [type(error).__name__]
            raise _Damaged(where, cause[0][:200]) from error

    def _set_aside(self, steps: list[int]) -> None:
        if jax.process_index() == 0:
            for step in steps:
                path = self._folder / str(step)
                names = (f"damaged-{step}" + (f"-{k}" if k else "") for k in itertools.count())
                path.rename(next(there for name in names if not (there := path.with_name(name)).exists()))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()


class _Damaged(UserError):
    """A checkpoint that is not as it was written: the one before may be."""

    def __init__(self, where: str | Path, cause: str):
        self.facts = [str(where), cause]
        self.brief = f"checkpoint {where} is damaged ({cause})"
        super().__init__(f"{self.brief}: the command that trained it, run again, goes back to the one before")


def _together[Found](read: Callable[[], Found]) -> Found:
    """What `read` returns; where it raises a UserError in one process, all raise one, so that none goes on
    alone: that one, or one of the same kind."""
    found = refusal = None
    try:
        found = read()
    except UserError as error:
        refusal = error
    damage = refusal.facts if isinstance(refusal, _Damaged) else None
    told = [one for one in gather([str(refusal), damage] if refusal else None) if one]
    others = [line for line, damage in told if not damage]  # worse than damage: no other step will do
    if refusal and (not others or not damage):
        raise refusal
    if others:
        raise UserError(others[0])
    if told:
        raise _Damaged(*told[0][1])
    return found


class _Kept(preservation_policy.PreservationPolicy):
    """The last `latest` steps, and the step `best`."""

    def __init__(self, latest: int):
        self._latest, self.best = latest, None

    def should_preserve(self, checkpoints, *, context):
        del context
        kept = self.of([one.step for one in checkpoints], self.best)
        return [one.step in kept for one in checkpoints]

    def of(self, steps: list[int], best: int | None) -> set[int | None]:
        return {*steps[-self._latest :], best}


def _of_version(where: Path, found: int) -> UserError:
    return UserError(
        f"checkpoint {where} is of format {found}, and this program reads format {checksum.FORMAT}: go "
        "on with the version of it that wrote it, or train anew in another --workdir"
    )


def _other(where: Path, saved: dict, wanted: dict, data: dict, config: dict | None) -> UserError:
    """Which fields of the config differ; where none does, which leaves."""
    there = data.get("config", {})
    differing = drift({name: there.get(name) for name in config}, config) if config else []
    return UserError(
        f"checkpoint {where} is of another config: {first(differing or drift(saved, wanted))}; use the one "
        "that it was written with"
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
