"""Kills the process that it is in just before a change of a file, and signs its shared memory.

Python imports a module of this name at its start; tests/chaos/process.py puts this folder on the path.
Audit events tell what is about to change below R2REC_CHAOS_FOLDER: files opened for writing, renamed and
removed, folders made and removed. Before number R2REC_CHAOS_AT, from 1, it kills the process, and its whole
group where R2REC_CHAOS_GROUP is 1. The file R2REC_CHAOS_NOTE tells which change that was, or at the end how
many there were. Names of shared memory and semaphores begin with R2REC_CHAOS_RUN, so that what a run leaves
can be told from that of others on the machine.
"""

import atexit
import itertools
import os
import signal
import sys
from multiprocessing import process, shared_memory

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FOLDER_AT = {"os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 2}  # where an event has its dir_fd


def changed(event: str, args: tuple) -> str | None:
    """The path that the event is about to change, None for any other event."""
    if event == "open":
        path, _, flags = args
        return os.fsdecode(path) if flags & WRITES and isinstance(path, str | bytes | os.PathLike) else None
    if event not in FOLDER_AT:
        return None
    path, folder = os.fsdecode(args[0]), args[FOLDER_AT[event]]
    return path if folder == -1 else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)


def begin() -> None:
    folder, note = os.environ["R2REC_CHAOS_FOLDER"] + os.sep, os.environ["R2REC_CHAOS_NOTE"]
    at, group = int(os.environ["R2REC_CHAOS_AT"]), os.environ["R2REC_CHAOS_GROUP"] == "1"
    numbers = itertools.count(1)
    last = 0

    def tell(text: str) -> None:
        with open(note, "w", encoding="utf-8") as file:
            file.write(text)

    def see(event: str, args: tuple) -> None:
        nonlocal last
        path = changed(event, args)
        if path is None or not path.startswith(folder):
            return
        last = next(numbers)
        if last == at:
            tell(f"{event} {path.removeprefix(folder)}")
            (os.killpg if group else os.kill)(os.getpgid(0) if group else os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)
    atexit.register(lambda: tell(str(last)))


def sign(run: str) -> None:
    """Eight characters: some systems allow no more than 14."""
    shared_memory._SHM_NAME_PREFIX = f"/{run[:8]}_"
    process.current_process()._config["semprefix"] = f"/{run[:8]}"


if run := os.environ.get("R2REC_CHAOS_RUN"):
    sign(run)
# What the command starts is left alone else: it changes none of its files.
if os.environ.get("R2REC_CHAOS_PARENT") == str(os.getppid()):
    begin()
