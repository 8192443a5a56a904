"""Runs a target's cases in a worker process (pebble), whatever it dies of, and keeps what is found."""

import multiprocessing
import os
import re
import tempfile
import time
from concurrent.futures import TimeoutError
from pathlib import Path
from unittest import mock

from pebble import ProcessExpired, ProcessPool

from tests.fuzz import worker
from tests.fuzz.worker import Finding

CHUNK = 50  # cases of a task; those of one that its worker dies of are read again one by one
LIMIT_S = (
    180.0  # for a task, with the worker's imports; a case has its own limit, where an alarm gets through
)
MOST = 100  # findings after which a target is left
# No cache of programs and no bytecode: a reader is to write nothing.
SETTINGS = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0", "PYTHONDONTWRITEBYTECODE": "1"}
SETTINGS |= {"PYTHONWARNINGS": "ignore"}


def run(name: str, cases: int, seed: int, out: Path) -> dict:
    """Reads `cases` inputs of a target; findings go to `out`/NAME.

    Returns counts, JSON-able: "cases", "read", "refused", "findings", "seconds", "cases_per_s", "peak_mb".
    """
    kept, total = _Findings(out / name), {"read": 0, "refused": 0}
    seconds, peak_mb, memory = 0.0, 0.0, Path("/dev/shm")  # a file there waits for no disk
    ranges = [(first, min(first + CHUNK, cases)) for first in range(0, cases, CHUNK)][::-1]
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as scratch,
        mock.patch.dict(os.environ, SETTINGS | {"TMPDIR": scratch}),
        ProcessPool(max_workers=1, context=multiprocessing.get_context("spawn")) as pool,
    ):
        while ranges and kept.count < MOST:
            first, end = ranges.pop()
            begun = time.monotonic()
            task = pool.schedule(worker.read, (name, seed, first, end, Path(scratch)), timeout=LIMIT_S)
            try:
                done = task.result()
            except (ProcessExpired, TimeoutError) as error:
                if end - first > 1:
                    ranges += [(number, number + 1) for number in range(first, end)][::-1]
                    continue
                code = getattr(error, "exitcode", None)
                what = "stuck in compiled code" if code is None else f"exit {code}\n{_last_words(scratch)}"
                kept.add(Finding(first, "death", what, worker.make(name, seed, first, Path(scratch))))
                seconds += time.monotonic() - begun
                continue
            for finding in done.findings:
                kept.add(finding)
            for outcome in total:
                total[outcome] += done.counts[outcome]
            seconds, peak_mb = seconds + done.seconds, max(peak_mb, done.peak_bytes / 1e6)
    total |= {"findings": kept.count, "cases": total["read"] + total["refused"] + kept.count}
    total["cases_per_s"] = round(total["cases"] / max(seconds, 1e-9), 1)
    return total | {"seconds": round(seconds, 1), "peak_mb": round(peak_mb)}


class _Findings:
    """One input and its story of each kind of finding in a folder; the others are counted."""

    def __init__(self, folder: Path):
        self._folder, self._seen, self.count = folder, set(), 0

    def add(self, finding: Finding) -> None:
        self.count += 1
        places = re.findall(r'File ".*?((?:r2rec_jax|launch)/[^"]*)", line (\d+)', finding.what)
        signature = (finding.kind, places[-1] if places else finding.what[:200])
        if signature in self._seen:
            return
        self._seen.add(signature)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{finding.kind}-{finding.case}"
        path.write_bytes(finding.data)
        path.with_suffix(".txt").write_text(finding.what)
        last = finding.what.strip().splitlines()[-1][:300]
        print(f"  {finding.kind}: {last}\n    python -m tests.fuzz {self._folder.name} --repeat={path}")


def _last_words(scratch: str) -> str:
    return (Path(scratch) / worker.STDERR).read_text(errors="replace")[-3000:]
