"""Atomic writes of files, lines and folders."""

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
from r2rec_jax.runtime.lock import locked


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it, so that readers never see a partial file.

    A temporary file left by a killed process is overwritten.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    try:
        with _exclusive(temporary) as file:
            try:
                _write(file, content.encode() if isinstance(content, str) else content)
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        if error.errno:  # the error has no file name or the temporary one
            error.filename = str(path)
        raise


def unfinished(path: Path) -> Path:
    """The temporary name of `path` during `write_atomic`."""
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[BinaryIO]:
    """Yields an empty file at `path`, locked for this writer; other writers wait."""
    while True:
        with open(path, "ab", buffering=0) as file:
            with contextlib.suppress(OSError):  # a file system without locks: assume a single writer
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                mine = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except FileNotFoundError:
                mine = False
            if mine:  # otherwise the previous writer has renamed or removed the file
                file.truncate(0)
                yield file
                return


def append_line(path: str | Path, line: bytes) -> None:
    """Appends a line, which ends in a newline, in one system call, so that a kill cannot split it.

    If the disk is full, the partial line is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            _write(file, line)
        except OSError as error:
            file.truncate(size)
            error.filename = str(path)
            raise


def _write(file: BinaryIO, data: bytes) -> None:
    """Writes all of `data` to an unbuffered file; a full disk may accept a part before it raises."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@contextlib.contextmanager
def new_folder(path: str | Path, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` when the block ends without an error.

    Leftovers of killed writers of `path` are removed first. With `overwrite` the old folder is replaced only
    after the block has succeeded.

    Raises:
      UserError: another process is writing `path`, or it exists and `overwrite` is false.
    """
    path = Path(path)
    with locked(path.with_name(f".{path.name}.lock"), str(path)) as held:
        if held:
            clear_abandoned(path)
        if path.exists() and not overwrite:
            raise UserError(f"{path} already exists: choose another folder or add --overwrite")
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, not a folder: remove it or choose another place")
        # In the same folder as the target, because a rename does not cross file systems.
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        fresh, old = scratch / "new", scratch / "old"
        try:
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


def clear_abandoned(path: Path) -> None:
    """Removes leftovers of killed writers of the folder `path`; the caller must hold its lock.

    If a killed `new_folder` had moved the old folder away, it is moved back.
    """
    pattern = re.compile(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}\.tmp")
    for scratch in list(path.parent.iterdir()):
        if pattern.fullmatch(scratch.name):
            if (scratch / "old").exists() and not path.exists():
                (scratch / "old").rename(path)  # killed between the two renames of a replacement
            shutil.rmtree(scratch, ignore_errors=True)
