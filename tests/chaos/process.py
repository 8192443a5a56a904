"""A command under watch: started in a session of its own, killed, and what it leaves running."""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).parent / "inside"
MARK = "R2REC_CHAOS_RUN"  # in the environment of a run, and so of all that it starts
SHARED_MEMORY = Path("/dev/shm")  # where Linux shows it, and semaphores


class Running:
    """`command`, begun; as a context it is over, with all that it started, when the block ends.

    Attributes:
      mark: what its processes carry in their environment.
      began: `time.monotonic()` of its start.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        log: Path,
        environment: dict[str, str],
        at: int = 0,
        alone: bool = False,
    ):
        """Starts it with `environment` besides this process's; `folder` is where it writes, `log` takes what
        it says. From inside it is killed before change number `at` below `folder`, if that is not 0;
        `alone`: without the other processes of its group."""
        self.mark, self._log, self._note = uuid.uuid4().hex, log, log.with_suffix(".note")
        for file in (log, self._note):  # what an earlier run has left running may still write there
            file.unlink(missing_ok=True)
        paths = [str(INSIDE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), MARK: self.mark}
        own |= {"R2REC_CHAOS_PARENT": str(os.getpid()), "R2REC_CHAOS_FOLDER": str(folder)}
        own |= {"R2REC_CHAOS_NOTE": str(self._note), "R2REC_CHAOS_AT": str(at)}
        own["R2REC_CHAOS_GROUP"] = str(int(not alone))
        with open(log, "wb") as said:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment | own,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.began = time.monotonic()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self.kill(alone=False)
        if error[0] is not None:  # nobody will watch for orphans any more
            kill(marked({self.mark})[self.mark])

    @property
    def code(self) -> int | None:
        """The exit code, minus the signal where one ended it; None while it runs."""
        return self._process.poll()

    def kill(self, alone: bool) -> None:
        """SIGKILL to its process `alone`, or to its group."""
        if alone:
            self._process.kill()
        else:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def note(self) -> str:
        """Which change it was killed before, or how many it made; '' where it was killed from outside."""
        return self._note.read_text(encoding="utf-8") if self._note.exists() else ""


class Orphans:
    """Processes and shared memory that outlive their run: watched, and removed when they do by `limit_s`.

    Attributes:
      count: of the processes that had to be killed.
      longest_s: that any lived on.
      segments: of shared memory, and semaphores, that had to be removed.
    """

    def __init__(self, limit_s: float):
        self._limit_s, self._since = limit_s, {}
        self.count, self.longest_s, self.segments = 0, 0.0, 0

    def expect(self, mark: str) -> None:
        """The run `mark` has just ended."""
        self._since[mark] = time.monotonic()

    def look(self) -> None:
        living, now = marked(self._since.keys()), time.monotonic()
        for mark, pids in living.items():
            lived, left = now - self._since[mark], segments(mark)
            late = lived > self._limit_s
            if pids:
                self.longest_s = max(self.longest_s, lived)
            if late:
                self.count += len(pids)
                kill(pids)
                self.segments += len(left)
                for path in left:
                    path.unlink(missing_ok=True)
            if late or not (pids or left):
                del self._since[mark]

    def settle(self) -> None:
        """Waits until none is left to watch."""
        while self._since:
            self.look()
            time.sleep(0.1)


def marked(marks) -> dict[str, list[int]]:
    """The living processes of each of the runs `marks`."""
    found = {mark: [] for mark in marks}
    for process in psutil.process_iter(["environ", "status"]) if found else ():
        mark = (process.info["environ"] or {}).get(MARK)  # None of a process that is not ours
        if mark in found and process.info["status"] != psutil.STATUS_ZOMBIE:
            found[mark].append(process.pid)
    return found


def segments(mark: str) -> list[Path]:
    """The shared memory and the semaphores that processes of the run `mark` have named and nobody removed."""
    return [path for path in SHARED_MEMORY.iterdir() if path.name.removeprefix("sem.").startswith(mark[:8])]


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
