"""Files, lines and folders that appear whole or not at all."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.lock import locked


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
    except OSError as error:
        if error.errno:  # a full disk names no file, and nobody knows the temporary one
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: str | Path, line: bytes) -> None:
    """Adds a line that ends in a newline, in one system call: a kill comes before or after it.

    A line that finds no room is taken back whole, so that another one does not follow half of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as file:
        size, rest = os.fstat(file.fileno()).st_size, memoryview(line)
        try:
            while rest:  # a disk that gets full takes a part, and complains about what is left
                rest = rest[file.write(rest) :]
        except OSError as error:
            file.truncate(size)
            error.filename = str(path)
            raise


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
            _clear_abandoned(path)
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


def _clear_abandoned(path: Path) -> None:
    """Removes the scratch folders of `path`; whoever asks holds its lock, so their writers are gone."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}\.tmp")
    for scratch in list(path.parent.iterdir()):
        if pattern.fullmatch(scratch.name):
            if (scratch / "old").exists() and not path.exists():
                (scratch / "old").rename(path)  # killed between the two renames of a replacement
            shutil.rmtree(scratch, ignore_errors=True)
