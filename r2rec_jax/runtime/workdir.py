"""Claims a workdir for one config and one run at a time."""

import contextlib
import json
import shutil
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from r2rec_jax.runtime.config_diff import drift, first
from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.lock import Lock
from r2rec_jax.runtime.paths import unfinished, write_atomic
from r2rec_jax.runtime.untrusted import parse_json

# Fields that change the speed or extent of a run but none of its numbers; a resumed run may change them.
RESUMABLE = ("data.workers", "tables", "seeds")
# Fields of a server section that do not change replies.
SERVER = ("concurrency", "requests_per_minute", "timeout_s", "retries", "cost_limit", "key_variable")
SERVER += ("reported_model",)
RESUMABLE += tuple(f"{section}.{name}" for section in ("openai", "server") for name in SERVER)
LOCK, INPUTS = ".lock", "inputs.json"
# The field "format" of config.json; raised when a section gets or loses fields. Absent means 1.
FORMAT = 2

# Locks of this process by folder, held until it ends, because later stages read what earlier ones wrote.
# `_claimed` has the folders whose claim succeeded.
_locks: dict[Path, Lock] = {}
_claimed: set[Path] = set()


def claim(workdir: str | Path, config: ConfigDict, overwrite: bool, grows: str = "") -> bool:
    """Claims `workdir` for `config` until this process ends, and writes config.json (resolved, sorted).

    Returns True if the folder already has this config, `RESUMABLE` fields aside; the caller then resumes.
    `grows` names a field that a resumed run may raise; the new value is recorded. `overwrite` clears the
    folder first, whatever its config.

    Raises:
      UserError: another run uses the folder, or with `overwrite` a folder inside it; the folder has another
        config (the message names the first three differing fields) or another config format; or it is no
        workdir, in which case it is neither written to nor cleared.
    """
    workdir = Path(workdir)
    record = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file: choose another --workdir")
    if not record.is_file() and workdir.exists() and not _is_new(workdir):
        raise UserError(
            f"--workdir {workdir} has files but no config.json, so it is no workdir of this "
            "program: choose another --workdir"
        )
    resolved = json.loads(json.dumps(config.to_dict()))
    if record.is_file() and not overwrite:
        _refuse_other(workdir, record, resolved, grows)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _hold(workdir)
        if overwrite and record.is_file():
            _clear(workdir)
        resumed = record.is_file()
        grown = resumed and _refuse_other(
            workdir, record, resolved, grows
        )  # another process may have written it meanwhile
        if grown or not resumed:
            whole = json.dumps(resolved | {"format": FORMAT}, indent=2, sort_keys=True)
            write_atomic(record, whole + "\n")
        if grown:
            logging.info(
                "%s; schedules that depend on the length, such as the learning rate, now use the new one",
                grown,
            )
    except OSError as error:
        raise UserError(f"--workdir {workdir} cannot be written: {error.strerror}") from error
    _claimed.add(workdir.resolve())
    return resumed


def read_record(workdir: Path) -> dict:
    """Reads the config of a workdir; {} if it has none. Raises UserError if it is damaged."""
    path = workdir / "config.json"
    try:
        config = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore the file that the run wrote") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is damaged (no object): restore the file that the run wrote")
    return {name: value for name, value in config.items() if name != "format"}


def has_claimed() -> bool:
    """Whether this process has claimed a workdir; --overwrite has been applied then and must not be
    repeated."""
    return bool(_claimed)


def _is_new(workdir: Path) -> bool:
    """Whether the folder has nothing but leftovers of an interrupted claim."""
    return {path.name for path in workdir.iterdir()} <= {LOCK, unfinished(workdir / "config.json").name}


def require_same_inputs(workdir: str | Path, checksums: dict[str, int]) -> None:
    """Writes the checksums of the adapters that a run reads, by their use, to WORKDIR/inputs.json.

    Raises UserError if the run was started with other adapters, e.g. because their training has continued.
    """
    path = Path(workdir) / INPUTS
    if not path.exists():
        write_atomic(path, json.dumps(checksums, indent=2) + "\n")
        return
    try:
        before = parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): add --overwrite to start over") from error
    if before != checksums:
        before = before if isinstance(before, dict) else {}
        changed = ", ".join(name for name in checksums if before.get(name) != checksums[name])
        raise UserError(
            f"--workdir {workdir} was started with another adapter of {changed or 'its systems'} than the "
            "present one: choose another --workdir, or add --overwrite to start over"
        )


def _hold(workdir: Path) -> None:
    where = workdir.resolve()
    if where in _locks and not _locks[where].is_current():
        _locks.pop(where).close()
    if where not in _locks:
        _locks[where] = Lock(workdir / LOCK, f"--workdir {workdir}")


def _refuse_other(workdir: Path, record: Path, wanted: dict, grows: str) -> str:
    """The growth of the run as text, "" if the configs are equal. Raises UserError if they differ."""
    try:
        present = parse_json(record.read_bytes())
    except ValueError as error:
        raise UserError(f"{record} is not JSON: choose another --workdir or add --overwrite") from error
    version = present.pop("format", 1) if isinstance(present, dict) else 1
    if version != FORMAT:
        raise UserError(
            f"--workdir {workdir} has config format {shown(version, 60)}, and this program writes format "
            f"{FORMAT}: continue with the version that wrote it, choose another --workdir or add --overwrite "
            "to clear it"
        )
    before, now = (_field(config, grows) for config in (present, wanted))
    grown = type(before) is type(now) is int and before < now
    differing = drift(present, wanted, ignored=(*RESUMABLE, grows) if grown else RESUMABLE)
    if differing:
        only = f"; {grows} can be raised, not lowered" if before != now and not grown else ""
        raise UserError(
            f"--workdir {workdir} belongs to another config: {first(differing)}{only}; "
            "choose another --workdir or add --overwrite to clear it"
        )
    return f"{grows} is raised from {before} to {now}" if grown else ""


def _field(tree: object, name: str) -> object:
    """The value of a dotted name; None if absent."""
    for part in filter(None, name.split(".")):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree if name else None


def _clear(workdir: Path) -> None:
    """Removes everything but the lock; config.json last, so that an interrupted clearing can be repeated."""
    record = workdir / "config.json"
    with contextlib.ExitStack() as inner:
        for path in list(workdir.rglob(LOCK)):  # locks of stages, each in its own workdir
            if path.parent.resolve() not in _locks:
                inner.callback(Lock(path, f"{path.parent}, which --overwrite would clear,").close)
        for path in workdir.iterdir():
            if path.name not in (record.name, LOCK):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    record.unlink()
