"""A workdir belongs to one config and to one run at a time: who comes with or beside another is told so."""

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

# Fields that change how fast a run is, or how much of it is done, and no number in it: a run may go on with
# another value.
MANNERS = ("data.workers", "tables", "seeds")
# How fast, how patiently and for how much a server is asked, with which key, and what it calls its model.
ASKING = ("concurrency", "requests_per_minute", "timeout_s", "retries", "cost_limit", "key_variable")
ASKING += ("reported_model",)
MANNERS += tuple(f"{section}.{name}" for section in ("openai", "server") for name in ASKING)
LOCK, INPUTS = ".lock", "inputs.json"
# Of config.json, in its field "format": raised where a section gets or loses fields. Without: format 1.
FORMAT = 2

# Those of this process by folder, held until it ends: what follows in it (a next stage, a report) reads
# what a run has written. `_claimed` are those whose claim was granted.
_locks: dict[Path, Lock] = {}
_claimed: set[Path] = set()


def claim(workdir: str | Path, config: ConfigDict, overwrite: bool, grows: str = "") -> bool:
    """Takes `workdir` for `config`, recorded in its config.json (resolved, sorted), until this process ends.

    Returns True when the folder already belongs to this very config, `MANNERS` aside: resume from what it
    holds. `grows` names a field that may also be higher than it was: the run is made longer, and recorded so.
    `overwrite` clears the folder first, whatever its config was.

    Raises:
      UserError: another run is at work in the folder, or with `overwrite` in one inside it; it belongs to
        another config (names the first three differing fields) or another version of this program; or it is
        not a workdir at all: such a folder is never written to, nor cleared.
    """
    workdir = Path(workdir)
    record = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file: choose another --workdir")
    if not record.is_file() and workdir.exists() and not _is_new(workdir):
        raise UserError(
            f"--workdir {workdir} holds files but no config.json, so it is no workdir of this "
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
        grown = resumed and _refuse_other(workdir, record, resolved, grows)  # it may be new
        if grown or not resumed:
            whole = json.dumps(resolved | {"format": FORMAT}, indent=2, sort_keys=True)
            write_atomic(record, whole + "\n")
        if grown:
            logging.info(
                "%s; what depends on its length, as the learning rate does, is now of the new one", grown
            )
    except OSError as error:
        raise UserError(f"--workdir {workdir} cannot be written: {error.strerror}") from error
    _claimed.add(workdir.resolve())
    return resumed


def read_record(workdir: Path) -> dict:
    """The config that a workdir was made with, {} where it has none. Raises UserError for a damaged one."""
    path = workdir / "config.json"
    try:
        config = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): give back the file that the run wrote") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is damaged (no object): give back the file that the run wrote")
    return {name: value for name, value in config.items() if name != "format"}


def has_claimed() -> bool:
    """Whether this process has claimed a workdir: then --overwrite is obeyed, and not to be given again."""
    return bool(_claimed)


def _is_new(workdir: Path) -> bool:
    """Whether it holds nothing but what a claim leaves that was cut short."""
    return {path.name for path in workdir.iterdir()} <= {LOCK, unfinished(workdir / "config.json").name}


def require_same_inputs(workdir: str | Path, checksums: dict[str, int]) -> None:
    """Records in WORKDIR/inputs.json the checksums of the adapters that a run reads, by what they are for.

    Raises UserError where the run was begun with other ones: their training went on since.
    """
    path = Path(workdir) / INPUTS
    if not path.exists():
        write_atomic(path, json.dumps(checksums, indent=2) + "\n")
        return
    try:
        before = parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): add --overwrite to begin anew") from error
    if before != checksums:
        before = before if isinstance(before, dict) else {}
        changed = ", ".join(name for name in checksums if before.get(name) != checksums[name])
        raise UserError(
            f"--workdir {workdir} was begun with another adapter of {changed or 'its systems'} than is there "
            "now: choose another --workdir, or add --overwrite to begin anew"
        )


def _hold(workdir: Path) -> None:
    where = workdir.resolve()
    if where in _locks and not _locks[where].is_current():
        _locks.pop(where).close()
    if where not in _locks:
        _locks[where] = Lock(workdir / LOCK, f"--workdir {workdir}")


def _refuse_other(workdir: Path, record: Path, wanted: dict, grows: str) -> str:
    """Says by how much the run grows, "" where it is the same. Raises UserError where it is another."""
    try:
        present = parse_json(record.read_bytes())
    except ValueError as error:
        raise UserError(f"{record} is not JSON: choose another --workdir or add --overwrite") from error
    found = present.pop("format", 1) if isinstance(present, dict) else 1
    if found != FORMAT:
        raise UserError(
            f"--workdir {workdir} is of config format {shown(found, 60)}, and this program writes format "
            f"{FORMAT}: go on with the version that wrote it, choose another --workdir or add --overwrite to "
            "clear it"
        )
    before, now = (_field(config, grows) for config in (present, wanted))
    grown = type(before) is type(now) is int and before < now
    differing = drift(present, wanted, ignored=(*MANNERS, grows) if grown else MANNERS)
    if differing:
        only = f"; {grows} can be raised, not lowered" if before != now and not grown else ""
        raise UserError(
            f"--workdir {workdir} belongs to another config: {first(differing)}{only}; "
            "choose another --workdir or add --overwrite to clear it"
        )
    return f"{grows} is raised from {before} to {now}" if grown else ""


def _field(tree: object, name: str) -> object:
    """A field by its dotted name, None where there is none."""
    for part in filter(None, name.split(".")):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree if name else None


def _clear(workdir: Path) -> None:
    """Empties the folder but for its lock; config.json goes last, so that a clearing cut short can be
    repeated."""
    record = workdir / "config.json"
    with contextlib.ExitStack() as inner:
        for path in list(workdir.rglob(LOCK)):  # of stages, each at work in a workdir of its own
            if path.parent.resolve() not in _locks:
                inner.callback(Lock(path, f"{path.parent}, which --overwrite would clear,").close)
        for path in workdir.iterdir():
            if path.name not in (record.name, LOCK):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    record.unlink()
