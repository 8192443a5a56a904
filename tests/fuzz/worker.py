"""The process that reads: one target, a range of cases, each a function of (seed, target, number)."""

import dataclasses
import functools
import os
import resource
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
STDERR = "stderr"  # file that takes what native code says as it dies


@dataclasses.dataclass(frozen=True)
class Finding:
    """`kind`: an exception, "reach", "hang", "message" or "death"; `what` it did; `data`: the input."""

    case: int
    kind: str
    what: str
    data: bytes


@dataclasses.dataclass(frozen=True)
class Done:
    """`counts` of cases "read" and "refused"; `peak_bytes`: of the process."""

    counts: dict[str, int]
    findings: list[Finding]
    seconds: float
    peak_bytes: int


def read(name: str, seed: int, first: int, end: int, scratch: Path) -> Done:
    """Cases `first` to `end` - 1 of a target, in this process, which becomes that target's for good."""
    target, guard = _begin(name, scratch)
    counts, findings, start = {"read": 0, "refused": 0}, [], time.monotonic()
    for number in range(first, end):
        data = target.make(_random(name, seed, number))
        kind, what = judge(target, data, guard)
        if kind in counts:
            counts[kind] += 1
        else:
            findings.append(Finding(number, kind, what, data))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return Done(counts, findings, time.monotonic() - start, peak)


def make(name: str, seed: int, number: int, scratch: Path) -> bytes:
    """The input of a case, without reading it."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    return load(name, folder).make(_random(name, seed, number))


def _random(name: str, seed: int, number: int) -> Random:
    return Random(f"{seed} {name} {number}")


@functools.cache
def _begin(name: str, scratch: Path) -> tuple[Target, Guard]:
    log = os.open(scratch / STDERR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    target, guard = prepare(name, Path(tempfile.mkdtemp(dir=scratch)) / "fence")
    judge(target, target.make(Random(0)), guard)  # imports and allocates what any case does
    guard.bound_memory(MEMORY)
    return target, guard


def prepare(name: str, folder: Path) -> tuple[Target, Guard]:
    """The target in a guarded folder of its own, where this process then stands."""
    guard = Guard(folder)
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
        kind, what = "reach", "; ".join(done[:5]).replace(str(guard.folder), "")
    return kind, what
