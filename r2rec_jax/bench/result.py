"""The rows that a suite returns, a paired timer, and processes of peers."""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import logging

from r2rec_jax.runtime.errors import UserError

PEERS = Path(__file__).parent / "peers"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of bench/SUITE.json.

    `ours` and `peer` are medians in `unit`. Less is better, and `ratio` is peer / ours. If the unit ends in
    "/s", it is a rate: more is better, and `ratio` is ours / peer. `peer` is None without a comparison.
    `target`: the required ratio. `met`: whether it is reached, None if ratio or target is missing.
    `spread`: the largest relative deviation of a sample from the median, of ours and of the peer.
    `limit`: a known upper bound of the ratio, or None.
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    ratio: float | None
    target: float | None
    met: bool | None
    spread: tuple[float, float | None]
    limit: float | None = None


def row(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float] | None,
    unit: str,
    target: float | None = None,
    limit: float | None = None,
) -> Row:
    """Makes the row of two lists of measurements in `unit`. Less is better, except for rates ("/s").

    Args:
      peer: None if the peer was not run.
      target: the required ratio, None without a target.
      limit: an upper bound of the ratio, None if none is known.
    """
    our_median = statistics.median(ours)
    peer_median = None if peer is None else statistics.median(peer)
    ratio = None if peer_median is None else peer_median / our_median
    if ratio is not None and unit.endswith("/s"):
        ratio = 1 / ratio
    met = None if ratio is None or target is None else ratio >= target
    spread = (_spread(ours), None if peer is None else _spread(peer))
    return Row(name, our_median, peer_median, unit, ratio, target, met, spread, limit)


def _spread(samples: Sequence[float]) -> float:
    median = statistics.median(samples)
    return max(abs(sample - median) for sample in samples) / median


def paired_seconds(
    ours: Callable[[], object],
    peer: Callable[[], object],
    repeats: int = 7,
    warmup: int = 1,
    consecutive: bool = False,
) -> tuple[list[float], list[float]]:
    """Wall seconds of both callables, run alternately so that disturbances of the machine affect both.

    Each callable must return only when its work is done (jax.block_until_ready). Warm-up runs, which
    compile, are not timed. With `consecutive`, each turn makes two calls and times the second, as in a
    training run, where a step follows another step and reuses its memory.
    """
    for _ in range(warmup):
        ours()
        peer()
    seconds = ([], [])
    for _ in range(repeats):
        for call, taken in zip((ours, peer), seconds, strict=True):
            if consecutive:
                call()
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return seconds


def run_peer(python: str | Path, script: str, *arguments: object) -> dict:
    """Runs peers/`script` with the peers' Python and returns the JSON object of its last line.

    Raises:
      UserError: there is no such Python, or the script failed. The message contains the last line of stderr.
    """
    done = _start(subprocess.run, python, script, arguments, capture_output=True)
    if done.returncode:
        raise _failed(f"peers/{script} by {python}", done.returncode, done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


class Peer:
    """A peer's process that works only during `ask`, so that its turns alternate with ours.

    It writes `hello`, a JSON object computed before any timing, and replies to each `ask` with a JSON object
    (peers/serving.py).
    """

    def __init__(self, process: subprocess.Popen, name: str, errors):
        self._process, self._name, self._errors = process, name, errors
        self.hello = self._read()

    def ask(self) -> dict:
        """Runs one turn of the peer's work and returns its reply."""
        with contextlib.suppress(BrokenPipeError):  # the peer has exited, which _read reports
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        raise _failed(self._name, code, self._errors.read())


@contextlib.contextmanager
def serving(python: str | Path, script: str, *arguments: object) -> Iterator[Peer]:
    """Context manager that starts peers/`script` with the peers' Python and kills it on exit.

    Raises:
      UserError: there is no such Python, or the script failed, also during `ask`. The message contains the
        last line of stderr.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        pipe = subprocess.PIPE
        process = _start(subprocess.Popen, python, script, arguments, stdin=pipe, stdout=pipe, stderr=errors)
        with process:
            try:
                yield Peer(process, f"peers/{script} by {python}", errors)
            finally:
                process.kill()
                with contextlib.suppress(BrokenPipeError):  # the peer exited before reading its input
                    process.stdin.close()


def fastest(python: str | Path, script: str, folder: str | Path, variants: Sequence[str]) -> str:
    """The variant of a peer with the smallest median of three turns after one warm-up. Logs all medians.

    A variant is the argument of `script` after `folder`. Failing variants are skipped.

    Raises:
      UserError: all variants fail.
    """
    seconds = {}
    for variant in variants:
        try:
            with serving(python, script, folder, variant) as peer:
                taken, _ = paired_seconds(peer.ask, lambda: None, repeats=3)
        except UserError as error:
            logging.warning("%s", error)
            continue
        seconds[variant] = statistics.median(taken)
        logging.info("%s %s: %.3f s", script, variant, seconds[variant])
    if not seconds:
        raise UserError(
            f"--peers={python}: no variant of peers/{script} runs; install what `make peers` does"
        )
    return min(seconds, key=seconds.get)


def quickest(calls: dict[str, Callable[[], object]]) -> str:
    """The name of the call with the smallest median of three runs after one warm-up."""
    medians = {
        name: statistics.median(paired_seconds(call, lambda: None, repeats=3)[0])
        for name, call in calls.items()
    }
    return min(medians, key=medians.get)


def require_equal(what: str, ours: float, theirs: float, tolerance: float = 1e-3) -> None:
    """Raises ValueError if both sides do not compute the same value, so that they are not compared."""
    if not abs(ours - theirs) <= tolerance * abs(theirs):
        raise ValueError(f"{what}: ours computes {ours}, the peer {theirs}")


def _start(start: Callable, python: str | Path, script: str, arguments: Sequence[object], **options):
    command = [str(python), str(PEERS / script), *map(str, arguments)]
    try:
        return start(command, text=True, **options)
    except OSError as error:
        raise UserError(f"--peers={python}: {error.strerror}; set it to the peers' python") from None


def _failed(name: str, code: int, errors: str) -> UserError:
    last = (errors.strip().splitlines() or ["no message"])[-1]
    return UserError(f"{name} ended with code {code}: {last}")
