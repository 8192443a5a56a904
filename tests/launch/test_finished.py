"""The record of a run's stages: read as it was written, or refused."""

import json

import pytest

from r2rec_jax.runs.finished import STAGES, read_stages
from r2rec_jax.runtime.errors import UserError


def test_what_was_recorded_reads_back(tmp_path):
    assert read_stages(tmp_path) == {}
    record = {"data": {"seconds": 1.5, "done": True}, "sft": {"seconds": 0, "done": False}}
    (tmp_path / STAGES).write_text(json.dumps(record))
    assert read_stages(tmp_path) == record


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[1]",
            "3",
            '{"sft": 1}',
            '{"sft": {"done": true}}',
            "[" * 100_000,
            '{"sft": {"seconds": 1, "done": 1}}',
        ),
        *(
            '{"sft": {"seconds": NaN, "done": true}}',
            '{"sft": {"seconds": -1, "done": true}}',
            '{"sft": {"seconds": "1"}}',
        ),
    ],
)
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / STAGES).write_text(text)
    with pytest.raises(UserError, match=r"stages\.json is damaged"):
        read_stages(tmp_path)
