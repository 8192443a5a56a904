"""A long run's own needs, measured as it goes: memory, descriptors, threads and the time of a step."""

import dataclasses
import io
import time
from collections.abc import Callable

import jax
import numpy as np
import psutil
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from scipy.stats import theilslopes

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.text_table import text_table

WARM = 0.4  # of the measurements, the first: caches fill, allocators find their size
FEWEST = 10  # measurements that a slope is told from
PER = 1000  # steps


@dataclasses.dataclass(frozen=True)
class Need:
    """What is measured. In 1,000 steps it may grow by `tolerance`; `relative`: a share of its median."""

    name: str
    label: str
    tolerance: float
    relative: bool = False


# Allocators and page caches wander by a few MB; what is counted in ones must not grow at all, which the
# slope tells where more than half of all pairs of measurements show it.
NEEDS = (
    Need("host_mb", "memory of the run, MB", 10.0),
    Need("children_mb", "memory of its workers, MB", 10.0),
    Need("device_mb", "arrays on devices, MB", 0.1),
    Need("arrays", "arrays on devices", 0.5),
    Need("descriptors", "open files, workers' too", 0.5),
    Need("threads", "threads, workers' too", 0.5),
    Need("step_s", "a step, s", 0.1, relative=True),
)


class Meter:
    """Measures after every `every`th step of a training loop.

    Attributes:
      rows: the measurements, each a dict of "step" and the names of NEEDS.
    """

    def __init__(self, every: int):
        if every < 1:
            raise UserError(f"soak.every={every}: use 1 or more")
        self._every, self._own, self._steps = every, psutil.Process(), []
        self.rows: list[dict[str, float]] = []

    def around(self, advance: Callable) -> Callable:
        """`advance` of the training loop, measured."""

        def measured(state, batch, step: int):
            start = time.perf_counter()
            advanced = advance(state, batch, step)
            self._steps.append(time.perf_counter() - start)
            if step % self._every == 0:
                self.rows.append({"step": step, **self._measure()})
                self._steps = []
            return advanced

        return measured

    def _measure(self) -> dict[str, float]:
        children = [needs for child in self._own.children(recursive=True) if (needs := _needs(child))]
        own, arrays = _needs(self._own), jax.live_arrays()
        return {
            "host_mb": own["mb"],
            "children_mb": sum(child["mb"] for child in children),
            "device_mb": sum(array.nbytes for array in arrays) / 1e6,
            "arrays": len(arrays),
            "descriptors": own["descriptors"] + sum(child["descriptors"] for child in children),
            "threads": own["threads"] + sum(child["threads"] for child in children),
            "step_s": float(np.median(self._steps)),
        }


def _needs(process: psutil.Process) -> dict[str, float] | None:
    """None of a process that has just ended."""
    try:
        with process.oneshot():
            mb = process.memory_info().rss / 1e6
            return {"mb": mb, "descriptors": process.num_fds(), "threads": process.num_threads()}
    except psutil.NoSuchProcess:
        return None


def verdict(rows: list[dict[str, float]]) -> list[dict]:
    """Of each need: "name", "label", "median", "growth" in 1,000 steps, "tolerance" in the same unit, "flat".

    The growth is the median slope of all pairs (Theil-Sen), so that a few outliers do not count; the first
    WARM of the rows are left out. Raises UserError for fewer than FEWEST rows beyond those.
    """
    rows = rows[int(WARM * len(rows)) :]
    if len(rows) < FEWEST:
        raise UserError(f"{len(rows)} measurements tell no slope: take more steps, or set soak.every lower")
    steps = np.array([row["step"] for row in rows])
    found = []
    for need in NEEDS:
        values = np.array([row[need.name] for row in rows])
        median = float(np.median(values))
        tolerance = need.tolerance * (median if need.relative else 1)
        growth = float(theilslopes(values, steps).slope) * PER
        found.append({"name": need.name, "label": need.label, "median": median, "growth": growth})
        found[-1] |= {"tolerance": tolerance, "flat": growth <= tolerance}
    return found


def table(found: list[dict]) -> str:
    """The verdict as text."""
    rows = [
        (
            need["label"],
            *(f"{need['median']:.4g}", f"{need['growth']:+.3g}", f"{need['tolerance']:.3g}"),
            "yes" if need["flat"] else "NO",
        )
        for need in found
    ]
    columns = ("", "median", f"in {PER:,} steps", "tolerated", "flat")
    return text_table(rows, columns, align="lrrrl")


def figure(rows: list[dict[str, float]]) -> str:
    """SVG of every need over the steps, one below the other."""
    drawn = Figure(figsize=(8, 1.7 * len(NEEDS)), layout="constrained")
    FigureCanvasSVG(drawn)
    for axes, need in zip(drawn.subplots(len(NEEDS), sharex=True), NEEDS, strict=True):
        values = [row[need.name] for row in rows]
        axes.plot([row["step"] for row in rows], values, linewidth=1)
        axes.set_title(need.label, fontsize=9, loc="left")
        axes.set_ylim(0, 1.1 * max(values) or 1)
        axes.grid(linewidth=0.4)
        axes.tick_params(labelsize=8)
    axes.set_xlabel("step", fontsize=9)
    file = io.StringIO()
    drawn.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
