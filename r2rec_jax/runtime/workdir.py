"""A workdir belongs to one config: who comes back with another is told so."""

import json
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.outside import parse_json
from r2rec_jax.runtime.paths import write_atomic

# Fields that change how fast a run is, or how much of it is done, and no number in it: a run may go on with
# another value.
MANNERS = ("data.workers", "tables", "seeds")


def claim(workdir: str | Path, config: ConfigDict, overwrite: bool) -> bool:
    """Takes `workdir` for `config`, recorded in its config.json (resolved, sorted).

    Returns True when the folder already belongs to this very config, `MANNERS` aside: resume from what it
    holds.
    `overwrite` clears the folder first, whatever its config was.

    Raises:
      UserError: the folder belongs to another config (names the first three differing fields), or
        it is not a workdir at all: such a folder is never written to, nor cleared.
    """
    workdir = Path(workdir)
    record = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file: choose another --workdir")
    if workdir.exists() and any(workdir.iterdir()) and not record.is_file():
        raise UserError(
            f"--workdir {workdir} holds files but no config.json, so it is no workdir of this "
            "program: choose another --workdir"
        )
    if overwrite and record.is_file():
        _clear(workdir)
    resolved = json.loads(json.dumps(config.to_dict()))
    if record.is_file():
        _refuse_other(workdir, record, resolved)
        return True
    try:
        write_atomic(record, json.dumps(resolved, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise UserError(f"--workdir {workdir} cannot be written: {error.strerror}") from error
    return False


def _refuse_other(workdir: Path, record: Path, wanted: dict) -> None:
    try:
        present = parse_json(record.read_bytes())
    except ValueError as error:
        raise UserError(f"{record} is not JSON: choose another --workdir or add --overwrite") from error
    before, now = _leaves(present), _leaves(wanted)
    differing = [
        f"{shown(name, 60)} ({shown(before.get(name, 'absent'), 60)} there, {now.get(name, 'absent')} here)"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, "absent") != now.get(name, "absent") and not name.endswith(MANNERS)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"--workdir {workdir} belongs to another config: {', '.join(differing[:3])}{more}; "
            "choose another --workdir or add --overwrite to clear it"
        )


def _leaves(tree: object, prefix: str = "") -> dict[str, str]:
    """{"train.steps": "10"}: JSON text of each leaf by its dotted name, so that 1 is not true."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: json.dumps(tree)}
    return {
        name: value
        for key, subtree in tree.items()
        for name, value in _leaves(subtree, f"{prefix}.{key}" if prefix else key).items()
    }


def _clear(workdir: Path) -> None:
    """Empties the folder; config.json goes last, so that a clearing cut short can be repeated."""
    record = workdir / "config.json"
    for path in workdir.iterdir():
        if path != record:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    record.unlink()
