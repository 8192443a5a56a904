"""Files and folders that appear whole or not at all."""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from r2rec_jax.runtime.errors import UserError


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it, so that a reader never sees half.

    What a killed writer has left under that name is written over.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    with _alone(temporary) as file:
        try:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def unfinished(path: Path) -> Path:
    """The name that `path` has while `write_atomic` writes it."""
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """An empty file at `path` that no other writer has: one who wants it too waits."""
    while True:
        with open(path, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the kernel releases it however this process ends
            try:
                mine = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except FileNotFoundError:
                mine = False
            if mine:  # else who had it before has renamed or removed it
                file.truncate(0)
                yield file
                return


@contextlib.contextmanager
def new_folder(path: str | Path, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` when the block ends without an error.

    What a killed writer of `path` left behind is cleared first.

    Raises:
      UserError: `path` exists and `overwrite` is false. With it, the old folder is replaced only
        after the block has succeeded.
    """
    path = Path(path)
    clear_abandoned(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path} already exists: choose another folder or add --overwrite")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a folder: remove it or choose another place")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, since a rename does not cross file systems.
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    fresh, old = scratch / "new", scratch / "old"
    lock = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it however this process ends
        fresh.mkdir()
        yield fresh
        if path.exists():
            path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def clear_abandoned(path: Path) -> None:
    """Removes what killed writers of the folder `path` have left: scratch folders that nobody has locked.

    A folder that a killed `new_folder` had moved away to replace it is put back.
    """
    pattern = re.compile(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}\.tmp")
    for scratch in path.parent.iterdir() if path.parent.is_dir() else ():
        if not pattern.fullmatch(scratch.name):
            continue
        lock = os.open(scratch, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (scratch / "old").exists() and not path.exists():
                (scratch / "old").rename(path)  # killed between the two renames of a replacement
            shutil.rmtree(scratch, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
