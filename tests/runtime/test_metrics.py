import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metrics import MetricWriter, read


def test_rows_read_back_in_order(tmp_path):
    assert read(tmp_path) == []
    writer = MetricWriter(tmp_path / "new")
    writer.write(1, {"train/loss": jnp.float32(0.5), "rollout/tokens_per_s": np.int64(7)})
    writer.write(1, {"eval/hr@1": 0.25})
    assert read(tmp_path / "new") == [
        {"step": 1, "train/loss": 0.5, "rollout/tokens_per_s": 7.0},
        {"step": 1, "eval/hr@1": 0.25},
    ]


def test_what_is_not_finite_stays_json(tmp_path):
    MetricWriter(tmp_path).write(1, {"train/loss": math.nan, "train/kl": -math.inf})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text) == {"step": 1, "train/loss": None, "train/kl": None}
    assert math.isnan(read(tmp_path)[0]["train/loss"])


def test_a_resumed_run_leaves_no_duplicate_and_no_gap(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in range(1, 6):
        writer.write(step, {"train/loss": step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "tra')  # killed while writing
    assert [row["step"] for row in read(tmp_path)] == [1, 2, 3, 4, 5]
    resumed = MetricWriter(tmp_path)
    resumed.truncate_after(3)
    for step in range(4, 7):
        resumed.write(step, {"train/loss": step})
    assert [(row["step"], row["train/loss"]) for row in read(tmp_path)] == [
        (step, step) for step in range(1, 7)
    ]


def test_damage_within_is_reported(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        read(tmp_path)
