"""Files, lines and folders that appear whole or not at all."""

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
    """Writes a file under a temporary name and renames it, so that a reader never sees half.

    What a killed writer has left under that name is written over.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    try:
        with _alone(temporary) as file:
            try:
                _write(file, content.encode() if isinstance(content, str) else content)
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        if error.errno:  # a full disk names no file, and nobody knows the temporary one
            error.filename = str(path)
        raise


def unfinished(path: Path) -> Path:
    """The name that `path` has while `write_atomic` writes it."""
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """An empty file at `path` that no other writer has: one who wants it too waits."""
    while True:
        with open(path, "ab", buffering=0) as file:
            with contextlib.suppress(OSError):  # where a file system has no locks, a path has one writer
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                mine = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except FileNotFoundError:
                mine = False
            if mine:  # else who had it before has renamed or removed it
                file.truncate(0)
                yield file
                return


def append_line(path: str | Path, line: bytes) -> None:
    """Adds a line that ends in a newline, in one system call: a kill comes before or after it.

    A line that finds no room is taken back whole, so that another one does not follow half of it.
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
    """To an unbuffered file: a disk that gets full takes a part, and complains about what is left."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@contextlib.contextmanager
def new_folder(path: str | Path, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` when the block ends without an error.

    What a killed writer of `path` left behind is cleared first.

    Raises:
      UserError: another process is writing `path`; or it exists and `overwrite` is false. With it, the old
        folder is replaced only after the block has succeeded.
    """
    path = Path(path)
    with locked(path.with_name(f".{path.name}.lock"), str(path)) as alone:
        if alone:
            clear_abandoned(path)
        if path.exists() and not overwrite:
            raise UserError(f"{path} already exists: choose another folder or add --overwrite")
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, not a folder: remove it or choose another place")
        # Beside the target, since a rename does not cross file systems.
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
    """Removes what killed writers of the folder `path` have left; whoever asks holds its lock.

    A folder that a killed `new_folder` had moved away to replace it is put back.
    """
    pattern = re.compile(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}\.tmp")
    for scratch in list(path.parent.iterdir()):
        if pattern.fullmatch(scratch.name):
            if (scratch / "old").exists() and not path.exists():
                (scratch / "old").rename(path)  # killed between the two renames of a replacement
            shutil.rmtree(scratch, ignore_errors=True)
