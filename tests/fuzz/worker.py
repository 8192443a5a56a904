"""The process that reads: one target, a range of cases, each a function of (seed, target, number).

What it finds goes to stdout, a JSON object a line; the case at hand to a file that its parent can read when
this process has died of it.
"""

import base64
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

from r2rec_jax.runtime.errors import UserError
from tests.fuzz.case import Target, load
from tests.fuzz.guard import Guard, Hang

MEMORY = 1 << 30  # bytes that reading may take
LONGEST = 20_000  # characters of a message to the user
MOST = 100  # findings after which a range is left


def main(name: str, seed: int, first: int, end: int, folder: Path) -> None:
    target, guard = prepare(name, folder)
    reader = Reader(target, guard, folder)
    for number in range(first, end):
        reader.read(number, target.make(Random(f"{seed} {name} {number}")))
        if reader.found == MOST:
            break
    reader.end()


class Reader:
    """Reads cases one by one, says what it finds, and counts the rest."""

    def __init__(self, target: Target, guard: Guard, folder: Path):
        self._target, self._guard, self.found = target, guard, 0
        self._at_hand = os.open(folder / "at_hand", os.O_RDWR | os.O_CREAT)
        self._counts, self._start = {"read": 0, "refused": 0}, time.monotonic()
        judge(target, target.make(Random(0)), guard)  # imports and allocates what any case does
        guard.bound_memory(MEMORY)

    def read(self, number: int, data: bytes) -> None:
        os.pwrite(self._at_hand, number.to_bytes(8) + len(data).to_bytes(8) + data, 0)
        kind, what = judge(self._target, data, self._guard)
        if kind in self._counts:
            self._counts[kind] += 1
            return
        self.found += 1
        say(case=number, kind=kind, what=what, data=base64.b64encode(data).decode())

    def end(self) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        say(done=self._counts, seconds=time.monotonic() - self._start, peak_bytes=peak)


def prepare(name: str, folder: Path) -> tuple[Target, Guard]:
    """The target in a guarded folder of its own, where this process then stands."""
    guard = Guard(folder / "fence")
    tempfile.tempdir = str(guard.case)
    os.chdir(guard.case)
    return load(name, guard.case), guard


def judge(target: Target, data: bytes, guard: Guard) -> tuple[str, str]:
    """("read" or "refused", "") for what a reader may do with `data`; else what it did, and where."""
    with guard(target.limit_s) as told:
        try:
            target.read(data)
            kind, what = "read", ""
        except UserError as error:
            kind, what = "refused", ""
            if not 0 < len(str(error).strip()) <= LONGEST:
                kind, what = "message", f"{len(str(error))} characters: {error!s:.500}"
        except Hang:
            kind, what = "hang", f"longer than {target.limit_s:g} s\n{traceback.format_exc(limit=-6)}"
        except KeyboardInterrupt:
            raise
        except MemoryError:
            kind, what = "MemoryError", traceback.format_exc(limit=-8)[-4000:]
        except BaseException as error:  # a panic of a compiled library is no Exception
            kind, what = type(error).__name__, traceback.format_exc(limit=-8)[-4000:]
    if done := told():
        kind, what = "reach", "; ".join(done[:5])
    return kind, what


def say(**found) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    name, seed, first, end, folder = sys.argv[1:]
    main(name, int(seed), int(first), int(end), Path(folder))
