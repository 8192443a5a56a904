"""What a folder was made from: a command that is run again can tell that all is there that it would make."""

import hashlib
import json
import os
from pathlib import Path

from r2rec_jax.runtime.lock import locked
from r2rec_jax.runtime.paths import clear_abandoned, write_atomic
from r2rec_jax.runtime.untrusted import parse_json

RECORD = ".made-from.json"
SAID = "{} is there already, made from the same files with the same settings"


def digest(settings: dict, *inputs: str | Path) -> str:
    """Of JSON-able settings and of files, alone or in folders: their paths, sizes and times of change.

    Not of what is in them: that may be many gigabytes, and who changes a file changes its time.
    """
    facts = sorted(fact for path in inputs for fact in _facts(Path(path)))
    return hashlib.sha256(json.dumps([settings, facts], sort_keys=True).encode()).hexdigest()


def record(folder: Path, made_from: str) -> None:
    """Notes in a folder that is complete now what it was made from, a `digest`."""
    write_atomic(folder / RECORD, json.dumps({"from": made_from, "files": _sizes(folder)}) + "\n")


def is_made(folder: Path, made_from: str) -> bool:
    """Whether `folder` was made from that, and every file in it still has its size.

    What killed writers of it have left beside it is removed. Raises UserError while another one is at work.
    """
    with locked(folder.with_name(f".{folder.name}.lock"), str(folder)) as alone:
        if alone:
            clear_abandoned(folder)
    try:
        said = parse_json((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return False
    return said == {"from": made_from, "files": _sizes(folder)}


def _facts(path: Path) -> list[list]:
    files = _files(path) if path.is_dir() else [path] if path.is_file() else []
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _sizes(folder: Path) -> dict[str, int]:
    files = [file for file in _files(folder) if file != folder / RECORD]
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _files(folder: Path) -> list[Path]:
    found = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.is_file())
