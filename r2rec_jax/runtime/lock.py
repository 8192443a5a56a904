"""A file lock for one writer at a time; the kernel releases it when the process ends.

The library filelock (tried: 4.3.1) does not name the holder, leaves its file behind and fails on a file
system without locks (ENOLCK). Without flock it uses a marker file, which a killed process leaves behind.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from r2rec_jax.runtime.errors import UserError

# Errors of network file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class Lock:
    """A lock file, held from construction to `close`; it contains the holder's pid and host.

    Child processes do not inherit the lock, so it is free once this process is killed.

    Attributes:
      held: False on a file system without locks; a warning is logged then.
    """

    def __init__(self, path: str | Path, what: str):
        """`what` names the locked thing in messages.

        Raises:
          UserError: another process holds the lock, or another Lock of this process does.
          OSError: the file cannot be created.
        """
        self.path = Path(path)
        while True:
            # NFS locks only files that are open for writing.
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self.held = _lock(self._file, what)
            except BaseException:
                os.close(self._file)
                raise
            if not self.held or self.is_current():
                break
            os.close(self._file)  # the previous holder has removed the file
        if self.held:
            with contextlib.suppress(OSError):  # on a full disk the lock still works
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def is_current(self) -> bool:
        """Whether the locked file is still at its path; False if its folder has been removed."""
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        os.close(self._file)


@contextlib.contextmanager
def locked(path: str | Path, what: str) -> Iterator[bool]:
    """Holds a Lock for a block and then removes its file; yields `Lock.held`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(path, what)
    try:
        yield lock.held
    finally:
        lock.path.unlink(missing_ok=True)  # while held: a waiting process notices and retries
        lock.close()


def _lock(file: int, what: str) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        match = re.match(r"pid \d+ on [\w.-]+", os.pread(file, 300, 0).decode(errors="replace"))
        holder = f" ({match[0]})" if match else ""
        raise UserError(
            f"{what} is in use by another run{holder}: wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logging.log_first_n(
            logging.WARNING,
            "%s: its file system has no locks (%s), so do not start a second run in it",
            1,
            what,
            os.strerror(error.errno),
        )
        return False
    return True
