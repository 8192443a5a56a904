"""What the loop costs a step, against a step of known length."""

import time

import pytest

from r2rec_jax.bench import records
from r2rec_jax.runtime.metric_writer import read


def test_the_time_between_steps_is_the_loops(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BLOCK", 5)
    plain = records.loop_seconds(tmp_path / "a", 2)
    written = read(tmp_path / "a")
    assert len(written) == 16 and {"train/mfu", "memory/host_peak_gb", "time/rollout_s"} <= written[0].keys()
    assert len(plain) == 2 and min(plain) > 0

    append = records.StepLog.append
    monkeypatch.setattr(records.StepLog, "append", lambda *args: (time.sleep(0.02), append(*args)))
    # Two lines are written each step, that of metrics and that of samples.
    slow = records.loop_seconds(tmp_path / "b", 2)
    assert min(slow) > 0.04 and min(slow) == pytest.approx(0.04 + min(plain), rel=0.5)
