"""Runs a target's cases in worker processes, whatever they die of, and keeps what is found."""

import base64
import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.case import Target

ROOT = Path(__file__).parents[2]
START_S = 180.0  # to import, and to make what is mutated
STUCK_S = 6 * Target.limit_s  # in one case, where not even the alarm gets through
# No cache of programs and no bytecode: a reader is to write nothing.
SETTINGS = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0", "PYTHONDONTWRITEBYTECODE": "1"}
SETTINGS |= {"PYTHONWARNINGS": "ignore"}


def run(name: str, cases: int, seed: int, out: Path, guided: bool = False) -> dict:
    """Reads `cases` inputs of a target; findings go to `out`/NAME.
    `guided`: inputs grow by what code they reach, see guided.py.

    Returns counts, JSON-able: "cases", "read", "refused", "findings", "seconds", "cases_per_s", "peak_mb".
    """
    kept, total = _Findings(out / name), {"cases": 0, "read": 0, "refused": 0, "findings": 0}
    total |= {"seconds": 0.0, "cases_per_s": 0.0, "peak_mb": 0.0}
    first, memory = 0, Path("/dev/shm")  # a file there waits for no disk
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=place) as scratch:
        while first < cases:
            folder = Path(scratch) / f"from-{first}"
            folder.mkdir()
            before = kept.count
            for said in _said(name, seed, first, cases, folder, guided):
                if "done" in said:
                    total["read"] += said["done"]["read"]
                    total["refused"] += said["done"]["refused"]
                    total["seconds"] += said["seconds"]
                    total["peak_mb"] = max(total["peak_mb"], round(said["peak_bytes"] / 1e6))
                    first = cases
                else:
                    kept.add(said)
                    if said["died"]:
                        # Its own counts died with it: what it found nothing in counts as read.
                        total["read"] += said["case"] - first - (kept.count - 1 - before)
                        first = said["case"] + 1
    total["findings"] = kept.count
    total["cases"] = total["read"] + total["refused"] + kept.count
    total["cases_per_s"] = round(total["cases"] / max(total["seconds"], 1e-9), 1)
    total["seconds"] = round(total["seconds"], 1)
    return total


class _Findings:
    """One input and its story of each kind of finding in a folder; the others are counted."""

    def __init__(self, folder: Path):
        self._folder, self._seen, self.count = folder, set(), 0

    def add(self, said: dict) -> None:
        self.count += 1
        places = re.findall(r'File ".*?((?:r2rec_jax|launch)/[^"]*)", line (\d+)', said["what"])
        signature = (said["kind"], places[-1] if places else said["what"][:200])
        if signature in self._seen:
            return
        self._seen.add(signature)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{said['kind']}-{said['case']}"
        path.write_bytes(base64.b64decode(said["data"]))
        path.with_suffix(".txt").write_text(said["what"])
        last = said["what"].strip().splitlines()[-1][:300]
        print(f"  {said['kind']}: {last}\n    python -m tests.fuzz {self._folder.name} --repeat={path}")


def _said(name: str, seed: int, first: int, end: int, folder: Path, guided: bool) -> Iterator[dict]:
    """What a worker says; at last what it died of, if it did."""
    module = "tests.fuzz.guided" if guided else "tests.fuzz.worker"
    command = [sys.executable, "-m", module, name, str(seed), str(first), str(end), str(folder)]
    settings = SETTINGS | {"TMPDIR": str(folder)}
    with open(folder / "stderr", "wb") as log:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, stderr=log
        )
    done, why = False, ""
    try:
        for line in _lines(worker, folder / "at_hand"):
            said = json.loads(line)
            done |= "done" in said
            yield said | {"died": False}
    except TimeoutError:
        why = "stuck in compiled code"
    finally:
        worker.kill()
        code = worker.wait()
    if not done:
        at_hand = folder / "at_hand"
        log = (folder / "stderr").read_text(errors="replace")[-3000:]
        if not at_hand.exists() or at_hand.stat().st_size < 16:
            raise RuntimeError(f"the worker of {name} did not start:\n{log}")
        held = at_hand.read_bytes()
        number, length = int.from_bytes(held[:8]), int.from_bytes(held[8:16])
        data = base64.b64encode(held[16 : 16 + length]).decode()
        yield {
            "case": number,
            "kind": "death",
            "what": why or f"exit {code}\n{log}",
            "data": data,
            "died": True,
        }


def _lines(worker: subprocess.Popen, at_hand: Path) -> Iterator[bytes]:
    """Lines of the worker's stdout. Raises TimeoutError when one case takes it too long."""
    number, since, rest = None, time.monotonic(), b""
    with selectors.DefaultSelector() as ready:
        ready.register(worker.stdout, selectors.EVENT_READ)
        while True:
            if ready.select(timeout=1.0):
                data = os.read(worker.stdout.fileno(), 1 << 20)
                if not data:
                    return
                *whole, rest = (rest + data).split(b"\n")
                yield from whole
            now = None
            with contextlib.suppress(OSError):
                now = at_hand.read_bytes()[:8] or None
            if now != number:
                number, since = now, time.monotonic()
            if time.monotonic() - since > (START_S if number is None else STUCK_S):
                raise TimeoutError
