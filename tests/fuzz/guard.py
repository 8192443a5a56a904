"""What a reader may do while it reads: nothing outside its folder, no process, no connection, no code.

Python tells an audit hook of files, processes, sockets and code (PEP 578). What compiled libraries do it
does not; so the folders above the reader's own are listed after every case.
"""

import dataclasses
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events, and which of their arguments are paths that are written to.
CHANGES = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown"), (0,)),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink", "shutil.move"), (0, 1)),
    "shutil.rmtree": (0,),
}
NEVER = (
    *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "pickle.find_class", "ctypes.dlopen"),
)
# Where Python and its libraries read for themselves.
OWN = tuple(
    f"{Path(path).resolve()}/"
    for path in (sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev", "/usr", Path(__file__).parents[2])
)


class Hang(BaseException):
    """A case took too long; not an Exception, so that no reader takes it for bad input."""


class Guard:
    """Watches over reading in `folder`/a/b/case, `folder` being of no other use."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.case = self.folder / "a" / "b" / "case"
        self.case.mkdir(parents=True)
        self._above = [self.case.parent, self.case.parent.parent, self.folder]
        self._listed = self._list()
        self._active, self._done = False, []
        sys.addaudithook(self._note)
        signal.signal(signal.SIGALRM, _hang)

    def bound_memory(self, more: int) -> None:
        """From here on the process may take `more` bytes besides what it has; then it gets MemoryError."""
        with open("/proc/self/status") as file:
            has = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (has + more, resource.RLIM_INFINITY))

    @contextmanager
    def __call__(self, limit_s: float) -> Iterator[Callable[[], list[str]]]:
        """Yields what tells, afterwards, of all that was done and may not be. Raises Hang after `limit_s`."""
        self._done.clear()
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        self._active = True
        try:
            yield self._told
        finally:
            self._active = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _told(self) -> list[str]:
        if (listed := self._list()) != self._listed:
            self._done.append(f"files outside the folder: {listed}")
            self._listed = listed
        return self._done

    def _list(self) -> list[list[str]]:
        return [sorted(os.listdir(folder)) for folder in self._above]

    def _note(self, event: str, arguments: tuple) -> None:
        if not self._active:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and not self._may_open(os.fsdecode(path), flags):
                self._done.append(f"open {path!r}")
        elif event in CHANGES:
            for k in CHANGES[event]:
                path = arguments[k]
                if isinstance(path, str | bytes) and not self._is_inside(os.fsdecode(path)):
                    self._done.append(f"{event} {path!r}")
        elif event in NEVER and not _by_python():
            self._done.append(f"{event} {arguments!r:.200}")
        elif event == "exec" and arguments[0].co_filename.startswith("<") and not _by_python():
            self._done.append(f"exec {arguments[0]!r}")

    def _may_open(self, path: str, flags: int) -> bool:
        if self._is_inside(path):
            return True
        if flags & WRITES:
            return path == os.devnull
        return os.path.realpath(path).startswith(OWN)

    def _is_inside(self, path: str) -> bool:
        if "\x00" in path:
            return True  # no such path can be
        # A relative one may be relative to an open folder, which the hook is not told: rmtree works so.
        return "/" not in path or os.path.realpath(path).startswith(f"{self.case}/") or path == str(self.case)


def _by_python() -> bool:
    """Whether Python is loading a module, which runs code and opens libraries, or making a dataclass."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_globals is vars(dataclasses):
            return True
        frame = frame.f_back
    return False


def _hang(*_) -> None:
    raise Hang
