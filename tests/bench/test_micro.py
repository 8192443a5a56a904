"""Micro-benchmarks: their rows, the memory against arithmetic, the loop against a step of known length."""

import time

import pytest

from r2rec_jax.bench import micro
from r2rec_jax.runtime.metric_writer import read


def test_the_time_between_steps_is_the_loops(tmp_path, monkeypatch):
    monkeypatch.setattr(micro, "BLOCK", 5)
    plain = micro.loop_seconds(tmp_path / "a", 2)
    written = read(tmp_path / "a")
    assert len(written) == 16 and {"train/mfu", "memory/host_peak_gb", "time/rollout_s"} <= written[0].keys()
    assert len(plain) == 2 and min(plain) > 0

    append = micro.StepLog.append
    monkeypatch.setattr(micro.StepLog, "append", lambda *args: (time.sleep(0.02), append(*args)))
    # Two lines are written each step, that of metrics and that of samples.
    slow = micro.loop_seconds(tmp_path / "b", 2)
    assert min(slow) > 0.04 and min(slow) == pytest.approx(0.04 + min(plain), rel=0.5)


@pytest.mark.parametrize(
    ("suite", "names"),
    [
        (micro.attention, ("causal, 2 rows of 64", "1 prompts of 64, 2 rows of 32 each")),
        (micro.loss_head, ("64 tokens, against all logits", "64 tokens, against recomputed chunks")),
    ],
)
def test_rows_are_times_and_memory_of_both_sides(suite, names):
    rows = suite(None, quick=True)
    assert [one.name for one in rows] == [f"{name}: {what}" for name in names for what in ("time", "memory")]
    assert [one.unit for one in rows] == ["s", "MB"] * len(names)
    assert all(one.ours > 0 and one.peer > 0 for one in rows)
    # All logits at once and their gradient are arrays of [M, V] float32; chunks of all M are no smaller.
    if suite is micro.loss_head:
        assert rows[1].peer >= 64 * 128 * 4 / 1e6
