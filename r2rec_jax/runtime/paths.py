"""Files and folders that appear whole or not at all."""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from r2rec_jax.runtime.errors import UserError


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it, so that a reader never sees half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    # The process id keeps two writers of one path from sharing a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | Path, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` when the block ends without an error.

    What a killed writer of `path` left behind is cleared first.

    Raises:
      UserError: `path` exists and `overwrite` is false. With it, the old folder is replaced only
        after the block has succeeded.
    """
    path = Path(path)
    _clear_abandoned(path)
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


def _clear_abandoned(path: Path) -> None:
    """Removes the scratch folders of `path` whose writer is gone, which is to say unlocked ones."""
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
