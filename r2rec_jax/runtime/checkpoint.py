"""Checkpoints: the arrays and JSON of a step, written together, asynchronously and atomically."""

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
    """Keeps the last `keep` checkpoints of a run and its best one, one folder per step.

    A step's folder gets its final name once everything in it is written, so a killed run leaves only complete
    checkpoints. Checksums detect later damage. Use it as a context manager, or call `close`. All processes of
    a run make the same calls; if one of them cannot read a checkpoint, all of them fail.
    """

    def __init__(self, folder: str | Path, keep: int = 2, read_only: bool = False):
        """`read_only`: changes nothing in the folder, for reading while a run is writing."""
        self._folder = Path(folder).absolute()  # orbax refuses relative paths
        self._kept = _Kept(keep)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._kept,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                lightweight_initialize=True,  # otherwise one damaged folder makes listing fail
            ),
        )
        # Each process has its own reader. The manager would wait for processes that stopped at a
        # damaged file.
        alone = jax.process_index()
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(),
            multiprocessing_options=ocp.options.MultiprocessingOptions(alone, active_processes={alone}),
        )

    def save(self, step: int, state: Any, data: dict, best: int | None = None) -> None:
        """Starts writing; returns once `state` is copied, so its buffers may be donated.

        Args:
          step: steps done. An existing step is not written again.
          state: pytree of arrays (named tuples, e.g. optax states, included); PRNG keys as uint32.
          data: JSON-able: iterator state, config, code version.
          best: a step to keep besides the last ones, if any.

        Raises:
          UserError: a disk error for this checkpoint or the previous one; older ones are unchanged.
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
        """Deletes checkpoints that `save` would not keep, which a killed run may have left."""
        steps = sorted(self._manager.all_steps())
        for step in steps:
            if step not in self._kept.of(steps, best):
                self._manager.delete(step)

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint; None before the first."""
        return self._manager.latest_step()

    def resume(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
        """Reads the newest undamaged checkpoint; None before the first.

        Newer, damaged checkpoints are renamed, e.g. "7" to "damaged-7", and a warning names them.

        Args:
          abstract_state: as for `restore`.

        Returns:
          (step, state, data).

        Raises:
          UserError: as `restore`, except for damage; or all checkpoints are damaged, and none is renamed
          then.
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
                logging.warning("%s and renamed; resuming from step %d", "; ".join(damaged.values()), step)
            return step, state, data
        if damaged:
            raise UserError(
                f"all checkpoints in {self._folder} are damaged: {'; '.join(damaged.values())}. Restore an "
                "undamaged one, or start over with --overwrite"
            )
        return None

    def restore(self, step: int, abstract_state: Any, config: dict | None = None) -> tuple[Any, dict]:
        """Reads one step back.

        Args:
          step: a saved step, usually `latest_step()`.
          abstract_state: pytree of jax.ShapeDtypeStruct (or arrays) with the saved structure. A leaf is
            placed by its sharding, on any mesh; without one, on the first device.
          config: sections of the reader's config. If the state does not fit, the error names the fields that
            differ from the "config" in the step's data.

        Returns:
          (state, data); the state's buffers may be donated.

        Raises:
          UserError: the checkpoint is missing, damaged, of another model or of another format.
        """
        where, abstract = self._folder / str(step), jax.tree.map(_abstract, abstract_state)
        self.wait()  # an asynchronous save may be in progress

        def read() -> tuple[int, Any, dict]:
            described, data = self._described(step), self._data(step)
            if described["leaves"] != checksum.leaves(abstract_state):
                raise _other(where, described["leaves"], checksum.leaves(abstract_state), data, config)
            return described["state"], self._read(step, state=ocp.args.StandardRestore(abstract)), data

        expected, state, data = _together(read)
        actual = checksum.of_arrays(state)

        def compare() -> None:
            if actual != expected:
                raise _Damaged(where, "the checksum of its arrays differs")

        _together(compare)
        return own_buffers(state), data

    def data(self, step: int) -> dict:
        """Reads the JSON of one step, without its state. Raises UserError as `restore` does."""
        self.wait()
        return _together(lambda: self._data(step))

    def wait(self) -> None:
        """Blocks until all saves are on disk. Raises errors of background writes, as `save` does."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves, then ends the background threads."""
        self._reader.close()
        with self._writing():
            self._manager.close()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind, *_: object) -> None:
        # An error in the block takes precedence over one in writing the last checkpoint.
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # tensorstore raises several types
            fault = disk_fault(error)
            if not fault:
                raise
            newest = self.latest_step()
            good = "no earlier one exists" if newest is None else f"that of step {newest} is good"
            raise UserError(
                f"a checkpoint could not be written to {self._folder} ({fault}); {good}: make room there, or "
                "make it writable, and run the same command again"
            ) from error

    def _described(self, step: int) -> dict:
        """The saved description of a step (see `checksum.describe`), checked for damage and format."""
        where = self._folder / str(step)
        if step not in self._manager.all_steps():
            raise UserError(f"no checkpoint at {where}: train first, or name another folder")
        described = self._read(step, checksum=ocp.args.JsonRestore())
        if isinstance(described, dict) and described.keys() == {"crc32"}:
            raise _of_version(where, 0)  # the format before it had a number
        own = described.pop("own", None) if isinstance(described, dict) else None
        if own is None or own != checksum.of_json(described):
            raise _Damaged(where, "the file of its checksums has changed")
        if described["format"] != checksum.FORMAT:
            raise _of_version(where, described["format"])
        return described

    def _data(self, step: int) -> dict:
        described, data = self._described(step), self._read(step, data=ocp.args.JsonRestore())
        if described["data"] != checksum.of_json(data):
            raise _Damaged(self._folder / str(step), "the checksum of its data differs")
        return data

    def _read(self, step: int, **item: ocp.args.CheckpointArgs) -> Any:
        """Reads one item of a step."""
        where, (name,) = self._folder / str(step), item
        try:
            return self._reader.restore(where, args=ocp.args.Composite(**item))[name]
        except Exception as error:  # orbax wraps errors in bare Exceptions
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
                path.rename(next(free for name in names if not (free := path.with_name(name)).exists()))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()


class _Damaged(UserError):
    """A damaged checkpoint; an older one may be undamaged."""

    def __init__(self, where: str | Path, cause: str):
        self.facts = [str(where), cause]
        self.brief = f"checkpoint {where} is damaged ({cause})"
        super().__init__(f"{self.brief}: run the training command again to resume from the previous one")


def _together[Result](read: Callable[[], Result]) -> Result:
    """Calls `read` in all processes and returns its result.

    If it raises UserError in one process, all processes raise one of the same kind, so that none continues
    alone.
    """
    result = failure = None
    try:
        result = read()
    except UserError as error:
        failure = error
    damage = failure.facts if isinstance(failure, _Damaged) else None
    failures = [each for each in gather([str(failure), damage] if failure else None) if each]
    fatal = [line for line, damage in failures if not damage]  # unlike damage, an older step does not help
    if failure and (not fatal or not damage):
        raise failure
    if fatal:
        raise UserError(fatal[0])
    if failures:
        raise _Damaged(*failures[0][1])
    return result


class _Kept(preservation_policy.PreservationPolicy):
    """Keeps the last `latest` steps and the step `best`."""

    def __init__(self, latest: int):
        self._latest, self.best = latest, None

    def should_preserve(self, checkpoints, *, context):
        del context
        kept = self.of([checkpoint.step for checkpoint in checkpoints], self.best)
        return [checkpoint.step in kept for checkpoint in checkpoints]

    def of(self, steps: list[int], best: int | None) -> set[int | None]:
        return {*steps[-self._latest :], best}


def _of_version(where: Path, version: int) -> UserError:
    return UserError(
        f"checkpoint {where} has format {version}, and this program reads format {checksum.FORMAT}: "
        "continue with the version that wrote it, or train again in another --workdir"
    )


def _other(where: Path, saved: dict, wanted: dict, data: dict, config: dict | None) -> UserError:
    """An error that names the differing config fields, or the differing leaves if no field differs."""
    saved_config = data.get("config", {})
    differing = drift({name: saved_config.get(name) for name in config}, config) if config else []
    return UserError(
        f"checkpoint {where} is of another config: {first(differing or drift(saved, wanted))}; use the "
        "config with which it was written"
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
