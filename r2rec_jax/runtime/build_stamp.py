"""Records the inputs of a generated folder, so that a repeated command can skip finished work."""

import hashlib
import json
import os
from pathlib import Path

from r2rec_jax.runtime.lock import locked
from r2rec_jax.runtime.paths import clear_abandoned, write_atomic
from r2rec_jax.runtime.untrusted import parse_json

RECORD = ".made-from.json"
UP_TO_DATE = "{} already exists, made from the same files with the same settings"


def digest(settings: dict, *inputs: str | Path) -> str:
    """A SHA-256 of JSON-able settings and of the paths, sizes and modification times of input files.

    Folders stand for all files in them. File contents are not read, because they may be many gigabytes.
    """
    facts = sorted(fact for path in inputs for fact in _facts(Path(path)))
    return hashlib.sha256(json.dumps([settings, facts], sort_keys=True).encode()).hexdigest()


def record(folder: Path, made_from: str) -> None:
    """Writes the `digest` of its inputs into a complete folder."""
    write_atomic(folder / RECORD, json.dumps({"from": made_from, "files": _sizes(folder)}) + "\n")


def is_made(folder: Path, made_from: str) -> bool:
    """Whether `folder` was made from `made_from` and every file in it still has its size.

    Leftovers of killed writers are removed. Raises UserError while another process is writing the folder.
    """
    with locked(folder.with_name(f".{folder.name}.lock"), str(folder)) as held:
        if held:
            clear_abandoned(folder)
    try:
        stamp = parse_json((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return False
    return stamp == {"from": made_from, "files": _sizes(folder)}


def _facts(path: Path) -> list[list]:
    files = _files(path) if path.is_dir() else [path] if path.is_file() else []
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _sizes(folder: Path) -> dict[str, int]:
    files = [file for file in _files(folder) if file != folder / RECORD]
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _files(folder: Path) -> list[Path]:
    paths = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return sorted(path for path in paths if path.is_file())
