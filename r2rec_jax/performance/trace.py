"""Reads a profiler trace as intervals: the operations that each device ran, and the host's annotations.

`jax.profiler.ProfileData` parses the file. On a CPU, operations are events of XLA's threads. On a GPU, they
are kernels and copies on streams. In both cases an event names its operation in the optimised HLO.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from jax.profiler import ProfileData

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Event:
    """One execution on a device.

    program: (name of the HLO module, its number). op: name of the operation in the module, "" if the trace
    has none. kernel: name of the kernel. start, end: seconds.
    """

    device: str
    program: tuple[str, str]
    op: str
    kernel: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Trace:
    """A parsed trace. events: of all devices. annotations: of the host, name -> [(start, end)] in seconds."""

    events: list[Event]
    annotations: dict[str, list[Interval]]

    @property
    def devices(self) -> list[str]:
        return sorted({event.device for event in self.events})


def find(folder: str | Path) -> Path:
    """The newest xplane file below `folder`. Raises FileNotFoundError if there is none."""
    files = sorted(Path(folder).glob("**/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f"no *.xplane.pb below {folder}")
    return files[-1]


def read(file: str | Path, names: Iterable[str]) -> Trace:
    """Reads an xplane file; it keeps only the host annotations in `names`."""
    events, annotations = [], {name: [] for name in names}
    for plane in ProfileData.from_file(str(file)).planes:
        gpu = plane.name.startswith("/device:GPU")
        if not gpu and plane.name != "/host:CPU":
            continue
        for line in plane.lines:
            # Lines derived from a GPU's streams would count every kernel twice.
            if gpu and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                start, end = event.start_ns / 1e9, event.end_ns / 1e9
                if event.name in annotations and not gpu:
                    annotations[event.name].append((start, end))
                    continue
                stats = dict(event.stats) if gpu or event.duration_ns else {}
                if not gpu and "hlo_op" not in stats:
                    continue
                events.append(
                    Event(
                        device=plane.name if gpu else f"cpu {stats.get('device_ordinal', 0)}",
                        program=(str(stats.get("hlo_module", "")), str(stats.get("program_id", ""))),
                        op=str(stats.get("hlo_op", "")),
                        kernel=event.name,
                        start=start,
                        end=end,
                    )
                )
    return Trace(events, annotations)


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Merges intervals into disjoint ones, in order of time."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def gaps(busy: Iterable[Interval], window: Interval) -> list[Interval]:
    """The parts of the window that no interval of `busy` covers."""
    free, at = [], window[0]
    for start, end in union(busy):
        if start > at:
            free.append((at, min(start, window[1])))
        at = max(at, end)
        if at >= window[1]:
            break
    if at < window[1]:
        free.append((at, window[1]))
    return [(start, end) for start, end in free if end > start]


def overlap(first: Iterable[Interval], second: Iterable[Interval]) -> float:
    """Seconds that two lists of disjoint, ordered intervals have in common."""
    first, second = list(first), list(second)
    total, i, j = 0.0, 0, 0
    while i < len(first) and j < len(second):
        total += max(0.0, min(first[i][1], second[j][1]) - max(first[i][0], second[j][0]))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return total
