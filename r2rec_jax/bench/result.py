"""What a suite returns, and the two ways it gets its numbers: a paired timer and a peer's process."""

import dataclasses
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from r2rec_jax.runtime.errors import UserError

PEERS = Path(__file__).parent / "peers"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of bench/SUITE.json.

    `ours` and `peer` are medians in `unit`, less is better; `peer` None: there was nothing to compare
    with. `ratio` is peer / ours, `target` the least ratio wanted, `met` None where either is missing.
    A unit that ends in "/s" is a rate: more is better, and `ratio` is ours / peer.
    `spread`: the widest sample's distance from the median, relative, of ours and of the peer.
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    ratio: float | None
    target: float | None
    met: bool | None
    spread: tuple[float, float | None]


def row(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float] | None,
    unit: str,
    target: float | None = None,
) -> Row:
    """The row of two lists of measurements in `unit` (seconds, MB: less is better; examples/s: more is).

    Args:
      peer: None when the peer could not be run.
      target: the least peer / ours wanted; None where nothing is promised.
    """
    our_median = statistics.median(ours)
    peer_median = None if peer is None else statistics.median(peer)
    ratio = None if peer_median is None else peer_median / our_median
    if ratio is not None and unit.endswith("/s"):
        ratio = 1 / ratio
    met = None if ratio is None or target is None else ratio >= target
    spread = (_spread(ours), None if peer is None else _spread(peer))
    return Row(name, our_median, peer_median, unit, ratio, target, met, spread)


def _spread(samples: Sequence[float]) -> float:
    median = statistics.median(samples)
    return max(abs(sample - median) for sample in samples) / median


def paired_seconds(
    ours: Callable[[], object], peer: Callable[[], object], repeats: int = 7, warmup: int = 1
) -> tuple[list[float], list[float]]:
    """Wall seconds of both, run alternately so that a disturbance of the machine falls on both alike.

    Each callable must return only when its work is done (jax.block_until_ready). Warm-up runs, which
    compile, are not counted.
    """
    for _ in range(warmup):
        ours()
        peer()
    seconds = ([], [])
    for _ in range(repeats):
        for call, taken in zip((ours, peer), seconds, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return seconds


def run_peer(python: str | Path, script: str, *arguments: object) -> dict:
    """Runs peers/`script` by the peers' own Python and returns the JSON object of its last line.

    Raises:
      UserError: there is no such Python, or the script failed; with the last line it wrote.
    """
    try:
        done = subprocess.run(
            [str(python), str(PEERS / script), *map(str, arguments)], capture_output=True, text=True
        )
    except OSError as error:
        raise UserError(f"--peers={python}: {error.strerror}; name the peers' python") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"peers/{script} by {python} ended with code {done.returncode}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])
