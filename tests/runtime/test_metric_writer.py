import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metric_writer import MetricWriter, read


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


ODD = [
    b"[1]",
    b"3",
    b'{"step": "1"}',
    b'{"step": 1, "a": "b"}',
    b'{"step": 1, "a": [2]}',
    b"\xff",
    b"[" * 100_000,
]


@pytest.mark.parametrize("line", ODD)
def test_a_line_of_another_kind_is_damage(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        read(tmp_path)


def test_what_stays_on_resuming_stays_byte_for_byte(tmp_path):
    kept = b'{"step":  1, "said": "half \\ud800 a pair", "x": 1e400}\n'
    (tmp_path / "metrics.jsonl").write_bytes(kept + b'{"step": 2}\n')
    MetricWriter(tmp_path).truncate_after(1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == kept
