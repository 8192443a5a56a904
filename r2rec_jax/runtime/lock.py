"""One writer at a time: a lock that the kernel keeps for a process, and gives back however that ends.

The library filelock (tried: 4.3.1) locks as well, but does not say who holds a lock, leaves its file behind,
fails on a file system without locks (ENOLCK) and, where flock is missing, marks by a file instead, which a
killed process leaves.
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

# What a network file system says that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class Lock:
    """A file, locked from the start to `close`; it says who holds it.

    A child process does not inherit it, so none of them keeps it when this process is killed.

    Attributes:
      held: False where the file system has no locks; a warning has said so.
    """

    def __init__(self, path: str | Path, what: str):
        """`what` is locked, in the words of a message.

        Raises:
          UserError: another process has it, or this one by another Lock.
          OSError: the file cannot be made.
        """
        self.path = Path(path)
        while True:
            # Open for writing, without which NFS locks nothing.
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self.held = _lock(self._file, what)
            except BaseException:
                os.close(self._file)
                raise
            if not self.held or self.is_current():
                break
            os.close(self._file)  # who had it before has removed the file
        if self.held:
            with contextlib.suppress(OSError):  # on a full disk it is a lock all the same
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def is_current(self) -> bool:
        """Whether the file is still the one at its path: not that of a folder that was removed since."""
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        os.close(self._file)


@contextlib.contextmanager
def locked(path: str | Path, what: str) -> Iterator[bool]:
    """Holds a Lock for a block and removes its file afterwards; yields whether it is held."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(path, what)
    try:
        yield lock.held
    finally:
        lock.path.unlink(missing_ok=True)  # while it is held: who waits for this file will look again
        lock.close()


def _lock(file: int, what: str) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = re.match(r"pid \d+ on [\w.-]+", os.pread(file, 300, 0).decode(errors="replace"))
        holder = f" ({said[0]})" if said else ""
        raise UserError(
            f"{what} is in use by another run{holder}: wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logging.log_first_n(
            logging.WARNING,
            "%s: its file system has no locks (%s), so nothing keeps a second run out: see to that",
            1,
            what,
            os.strerror(error.errno),
        )
        return False
    return True
