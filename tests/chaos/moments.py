"""When a run is killed: at any time, while something unfinished is on the disk, or at a change of a file."""

import dataclasses
import os
import re
import time
from pathlib import Path

import numpy as np

# What a writer here, or orbax, calls a file or a folder until it is whole.
UNFINISHED = re.compile(r".*\.(tmp|part)|.*\.orbax-checkpoint-tmp.*")
PHASES = ("starting", "working", "writing")
SOON_S = 0.1  # mean wait after something unfinished was seen: a checkpoint of the tiny model takes about that


@dataclasses.dataclass(frozen=True)
class Moment:
    """One way to be killed; `alone`: the process without its group.

    time_s: after the start. unfinished: the how many-th unfinished file to appear, and `time_s` after that.
    change: the how many-th change of a file. What is 0 does not count.
    """

    time_s: float = 0.0
    unfinished: int = 0
    change: int = 0
    alone: bool = False


def draw(rng: np.random.Generator, whole_s: float, changes: int) -> Moment:
    """A random moment of a run that takes `whole_s` and makes `changes` of files when nobody kills it."""
    alone = bool(rng.random() < 0.25)
    match rng.choice(["time", "unfinished", "change"], p=[0.4, 0.3, 0.3]):
        case "time":
            return Moment(time_s=float(rng.uniform(0, whole_s)), alone=alone)
        case "unfinished":
            wait_s = float(rng.exponential(SOON_S))
            return Moment(time_s=wait_s, unfinished=int(rng.integers(1, 4)), alone=alone)
        case _:
            return Moment(change=int(rng.integers(1, max(changes, 1) + 1)), alone=alone)


class Watch:
    """Looks at a folder while a run writes to it, to tell when its moment has come and what it was at."""

    def __init__(self, folder: Path, moment: Moment):
        self._folder, self._moment = folder, moment
        self._before = snapshot(folder)
        self._there = unfinished(folder)
        self._appeared, self._due = 0, None

    def now(self, began: float) -> bool:
        """Whether to kill the run that was started at `began`; call it often."""
        moment = self._moment
        if moment.change:
            return False  # what is inside the run does it
        if not moment.unfinished:
            return time.monotonic() - began >= moment.time_s
        there = unfinished(self._folder)
        self._appeared += len(there - self._there)
        self._there = there
        if self._due is None and self._appeared >= moment.unfinished:
            self._due = time.monotonic() + moment.time_s
        return self._due is not None and time.monotonic() >= self._due

    def phase(self, said: str) -> str:
        """Of the run that has just been killed: "writing" where it left something unfinished, "starting"
        where it had neither changed a file nor `said` anything, else "working"."""
        after = snapshot(self._folder)
        new = [name for name, facts in after.items() if self._before.get(name) != facts]
        if any(UNFINISHED.fullmatch(Path(name).name) for name in new):
            return "writing"
        return "working" if said or after != self._before else "starting"


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """(changed at, size) of everything below `folder`."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(where, name)
            try:
                facts = os.lstat(path)
            except FileNotFoundError:  # it is at work
                continue
            found[path] = facts.st_mtime_ns, facts.st_size
    return found


def unfinished(folder: Path) -> set[str]:
    """What is unfinished below `folder`, without what is inside it."""
    found = set()
    for where, folders, files in os.walk(folder):
        names = {name for name in (*folders, *files) if UNFINISHED.fullmatch(name)}
        found |= {os.path.join(where, name) for name in names}
        folders[:] = [name for name in folders if name not in names]
    return found
