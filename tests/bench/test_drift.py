"""An earlier result to compare with: read as it was written, or refused."""

import json

import pytest

from r2rec_jax.bench.result import row
from r2rec_jax.bench.table import drift, read_rows
from r2rec_jax.runtime.errors import UserError

ROWS = [row("step", [1.0, 1.1], [2.0, 2.2], "s"), row("load", [3.0], None, "MB")]


def written(path, *changes: dict):
    rows = [vars(one) | change for one, change in zip(ROWS, [*changes, {}, {}], strict=False)]
    path.write_text(json.dumps(rows))
    return path


def test_what_was_written_reads_back(tmp_path):
    rows = read_rows(written(tmp_path / "a.json"))
    assert [one["name"] for one in rows] == ["step", "load"] and "within spread" in drift(ROWS, rows)


@pytest.mark.parametrize("content", ["", "{}", '[{"name": "a"}]', "[1]", "[" * 100_000])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json is not a result of launch\.bench"):
        read_rows(tmp_path / "a.json")
    with pytest.raises(UserError, match="No such file"):
        read_rows(tmp_path / "b.json")


CHANGES = [
    {"ours": 0.0},
    {"ours": "1"},
    {"ratio": 0.0},
    {"ours": float("nan")},
    {"spread": [0.1]},
    {"spread": None},
]


@pytest.mark.parametrize(
    "change", [*CHANGES, {"spread": [0.1, None]}, {"name": []}, {"unit": None}, {"ratio": 10**400}]
)
def test_numbers_that_cannot_be_compared_are_refused(tmp_path, change):
    with pytest.raises(UserError, match=r"a\.json is not a result of launch\.bench"):
        read_rows(written(tmp_path / "a.json", change))
