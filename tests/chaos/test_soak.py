"""What grows is found, what wanders is not."""

import mmap
import os

import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.chaos.soak import NEEDS, Meter, figure, table, verdict
from r2rec_jax.runtime.errors import UserError


def rows(**growth) -> list[dict]:
    """200 measurements in 2,000 steps that wander by a hundredth; `growth` of a need in 1,000 steps."""
    rng = np.random.default_rng(0)
    levels = {"host_mb": 800.0, "children_mb": 300.0, "device_mb": 20.0, "step_s": 0.4}
    levels |= {"arrays": 300, "descriptors": 40, "threads": 30}
    found = []
    for step in range(10, 2001, 10):
        row = {name: level + growth.get(name, 0.0) * step / 1000 for name, level in levels.items()}
        for name in ("host_mb", "children_mb", "step_s"):
            row[name] *= 1 + 0.01 * rng.standard_normal()
        found.append({"step": step} | row)
    return found


def test_what_wanders_is_flat_also_with_a_busy_start_and_outliers():
    measured = rows()
    for k in range(60):
        measured[k]["host_mb"] *= k / 60
    for k in (90, 120, 150):
        measured[k]["step_s"] *= 9
        measured[k]["threads"] += 4
    found = verdict(measured)
    assert [need["name"] for need in found] == [need.name for need in NEEDS]
    assert all(need["flat"] for need in found) and "NO" not in table(found)


@pytest.mark.parametrize(
    ("name", "growth"),
    [
        ("host_mb", 20.0),
        ("children_mb", 20.0),
        ("device_mb", 1.0),
        ("arrays", 2.0),
        ("descriptors", 1.0),
        ("threads", 1.0),
        ("step_s", 0.1),
    ],
)
def test_what_grows_is_found(name, growth):
    found = {need["name"]: need for need in verdict(rows(**{name: growth}))}
    assert [need for need in found if not found[need]["flat"]] == [name]
    assert found[name]["growth"] == pytest.approx(growth, rel=0.3)


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
    growth = {need["name"]: need["growth"] / 1000 for need in verdict(meter.rows)}  # in a step
    assert growth["descriptors"] == pytest.approx(1) and growth["arrays"] == pytest.approx(1)
    assert growth["device_mb"] == pytest.approx(0.004)
    assert growth["host_mb"] == pytest.approx(4, rel=0.3)


def test_too_few_measurements_are_no_slope():
    with pytest.raises(UserError, match="6 measurements tell no slope"):
        verdict(rows()[:10])
    with pytest.raises(UserError, match=r"soak\.every=0"):
        Meter(every=0)


def test_the_figure_shows_every_need():
    drawn = figure(rows())
    assert drawn.count("<svg") == 1 and all(need.label in drawn for need in NEEDS)
