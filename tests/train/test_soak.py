"""A long GRPO run keeps its memory, descriptors, threads and CPU time of a step; what grows is found."""

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.soak import NEEDS, Meter, table, verdict

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_grows_in_a_long_run(tmp_path):
    """R2REC_SOAK_STEPS takes more steps: a leak of a tolerance's worth is then spread over more of them."""
    steps = int(os.environ.get("R2REC_SOAK_STEPS", 300))
    done = subprocess.run(  # a process of its own: no other test's memory or threads
        [sys.executable, "-m", "tests.train.soak", str(tmp_path), str(steps)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["step"] for row in rows] == [*range(5, steps + 1, 5)]
    assert all(row[need.name] > 0 for row in rows for need in NEEDS)
    found = verdict(rows)
    print("\n" + table(found))
    assert all(need["flat"] for need in found.values()), table(found)


def measured(**growth) -> list[dict]:
    """100 measurements in 500 steps that wander by a thousandth; `growth` of a need over the 300 judged."""
    rng = np.random.default_rng(0)
    levels = {"host_mb": 1000.0, "children_mb": 500.0, "device_mb": 20.0, "cpu_s": 0.1}
    levels |= {"arrays": 300, "descriptors": 100, "threads": 40}
    rows = []
    for step in range(5, 501, 5):
        row = {name: level + growth.get(name, 0.0) * step / 300 for name, level in levels.items()}
        for name in ("host_mb", "children_mb"):
            row[name] *= 1 + 0.001 * rng.standard_normal()
        row["cpu_s"] *= 1 + 0.1 * rng.random()
        rows.append({"step": step} | row)
    return rows


def test_what_wanders_is_flat_also_with_a_busy_start_and_outliers():
    rows = measured()
    for k in range(35):
        rows[k]["host_mb"] *= k / 35
    for k in (50, 70, 90):
        rows[k]["cpu_s"] *= 9
        rows[k]["descriptors"] += 4
    found = verdict(rows)
    assert [*found] == [need.name for need in NEEDS]
    assert all(need["flat"] for need in found.values()) and "NO" not in table(found)


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.name)
def test_what_grows_is_found(need):
    level = verdict(measured())[need.name]["median"] if need.relative else 1
    growth = 1.5 * need.tolerance * level
    found = verdict(measured(**{need.name: growth}))
    assert [name for name in found if not found[name]["flat"]] == [need.name]
    assert found[need.name]["growth"] == pytest.approx(growth, rel=0.2)
    assert table(found).count("NO") == 1


def test_a_leak_of_files_arrays_and_memory_is_measured():
    leaked = []

    def leaking(state, batch, _):
        # Pages of its own: what malloc gives may have been the process's all along, as free memory.
        pages = mmap.mmap(-1, 4_000_000)
        np.frombuffer(pages, np.uint8)[:] = 1
        leaked.append((os.open("/dev/null", os.O_RDONLY), jnp.ones(1000), pages))
        return state + 1, {}, batch

    meter = Meter(every=2)
    advance, state = meter.around(leaking), 0
    try:
        for step in range(1, 41):
            state, _, _ = advance(state, None, step)
    finally:
        for descriptor, _, _ in leaked:
            os.close(descriptor)
    assert state == 40 and [row["step"] for row in meter.rows] == [*range(2, 41, 2)]
    found = verdict(meter.rows)
    judged = 40 - 18  # steps from the first row judged to the last
    growth = {name: need["growth"] / judged for name, need in found.items()}  # in a step
    assert growth["descriptors"] == pytest.approx(1) and growth["arrays"] == pytest.approx(1)
    assert growth["device_mb"] == pytest.approx(0.004)
    assert growth["host_mb"] == pytest.approx(4, rel=0.3)
    assert not (found["descriptors"]["flat"] or found["arrays"]["flat"] or found["host_mb"]["flat"])


def test_too_few_measurements_are_no_slope():
    with pytest.raises(ValueError, match="6 measurements give no slope"):
        verdict(measured()[:10])
