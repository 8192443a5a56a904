"""A long GRPO run's own needs, measured as it goes: memory, descriptors, threads and CPU time of a step.

    python -m tests.train.soak WORKDIR STEPS

prepares generated data in WORKDIR/data, trains the embedded model from a fresh adapter in WORKDIR/train, as
launch.train would, with validation, checkpoints and worker processes, and writes WORKDIR/rows.json.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import psutil
from ml_collections import ConfigDict
from scipy.stats import theilslopes

from configs import grpo
from r2rec_jax.runs import preparation, training
from r2rec_jax.runtime.text_table import text_table
from r2rec_jax.train import loop

EVERY = 5  # steps between two measurements
WARM = 0.4  # of the measurements, the first: caches fill, allocators find their size
FEWEST = 10  # measurements that a slope needs


@dataclasses.dataclass(frozen=True)
class Need:
    """What is measured. While it is judged it may grow by `tolerance`; `relative`: a share of its median."""

    name: str
    label: str
    tolerance: float
    relative: bool = False


# Allocators and page caches wander by a few MB, and thread pools add threads up to their size when they are
# busy. What else is counted in ones must not grow at all, which the slope shows where more than half of all
# pairs of measurements do. A step's time is CPU time, the least of a measurement's steps: on the clock, other
# work on the machine doubles a step while its CPU time stays.
NEEDS = (
    Need("host_mb", "memory of the run, MB", 10.0),
    Need("children_mb", "memory of its workers, MB", 10.0),
    Need("device_mb", "arrays on devices, MB", 0.1),
    Need("arrays", "arrays on devices", 0.5),
    Need("descriptors", "open files, workers' too", 0.5),
    Need("threads", "threads, workers' too", 2.0),
    Need("cpu_s", "CPU time of a step, s", 0.25, relative=True),
)


class Meter:
    """Measures after every EVERYth step of a training loop.

    Attributes:
      rows: the measurements, each a dict of "step" and the names of NEEDS.
    """

    def __init__(self, every: int = EVERY):
        self._every, self._own, self._cpu = every, psutil.Process(), []
        self.rows: list[dict[str, float]] = []

    def around(self, advance: Callable) -> Callable:
        """`advance` of the training loop, measured."""

        def measured(state, batch, step: int):
            start = time.process_time()
            advanced = advance(state, batch, step)
            self._cpu.append(time.process_time() - start)
            if step % self._every == 0:
                self.rows.append({"step": step, **self._measure()})
                self._cpu = []
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
            "cpu_s": float(np.min(self._cpu)),
        }


def _needs(process: psutil.Process) -> dict[str, float] | None:
    """None of a process that has just ended."""
    try:
        with process.oneshot():
            mb = process.memory_info().rss / 1e6
            return {"mb": mb, "descriptors": process.num_fds(), "threads": process.num_threads()}
    except psutil.NoSuchProcess:
        return None


def verdict(rows: list[dict[str, float]]) -> dict[str, dict]:
    """Of each need, by name: "label", "median", "growth" over the rows judged, "tolerance", "flat".

    The growth is the median slope of all pairs (Theil-Sen) times the steps judged, so that a few outliers do
    not count. The first WARM of the rows are left out. Raises ValueError for fewer than FEWEST beyond those.
    """
    rows = rows[int(WARM * len(rows)) :]
    if len(rows) < FEWEST:
        raise ValueError(f"{len(rows)} measurements give no slope: take more steps")
    steps = np.array([row["step"] for row in rows])
    found = {}
    for need in NEEDS:
        values = np.array([row[need.name] for row in rows])
        median = float(np.median(values))
        tolerance = need.tolerance * (median if need.relative else 1)
        growth = float(theilslopes(values, steps).slope * (steps[-1] - steps[0]))
        found[need.name] = {"label": need.label, "median": median, "growth": growth}
        found[need.name] |= {"tolerance": tolerance, "flat": growth <= tolerance}
    return found


def table(found: dict[str, dict]) -> str:
    """The verdict as text."""
    rows = [
        (
            need["label"],
            *(f"{need['median']:.4g}", f"{need['growth']:+.3g}", f"{need['tolerance']:.3g}"),
            "yes" if need["flat"] else "NO",
        )
        for need in found.values()
    ]
    return text_table(rows, ("", "median", "growth", "tolerated", "flat"), align="lrrrl")


def config_of(steps: int) -> ConfigDict:
    """GRPO on small things, with everything that a long run keeps open."""
    c = grpo.get_config("quickstart")
    c.data.generated_users = 300
    c.data.sizes.update({"sft": 10, "grpo": 120, "validation": 16, "evaluation": 10})
    c.train.update({"init": "", "batch_size": 4, "steps": steps})
    c.train.update({"checkpoint_every": 25, "evaluate_every": 50})
    c.evaluate.batch_size = 16
    c.grpo.group = 4
    c.rollout.update({"max_tokens": 16, "chunk": 8})
    # What they need must not grow either.
    c.data.workers = c.reward.workers = 1
    return c


def main(workdir: Path, steps: int) -> None:
    config, meter = config_of(steps), Meter()
    config.data.folder = str(workdir / "data")
    preparation.main(config, workdir / "data", False)

    def drive(config, workdir, state, batches, advance, *rest, **named):
        return loop.run(config, workdir, state, batches, meter.around(advance), *rest, **named)

    training.main(config, workdir / "train", False, drive=drive)
    (workdir / "rows.json").write_text(json.dumps(meter.rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
