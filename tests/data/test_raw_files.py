"""Staging: what a killed run leaves, and what the next one makes of it."""

import numpy as np
import pytest

from r2rec_jax.data.raw_files import Stage
from r2rec_jax.runtime.errors import UserError


def staged_files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}


def test_parsed_files_are_reused_until_the_raw_file_changes(make_raw, tmp_path):
    raw, folder = make_raw("csv"), tmp_path / "staging"
    expected, _ = raw.read(folder)
    first = staged_files(folder)
    assert len(first) == 3 and not (folder / "work").exists()
    again, _ = raw.read(folder)
    assert staged_files(folder) == first
    assert np.array_equal(again.interactions.item, expected.interactions.item)
    raw.ratings.write_text(raw.ratings.read_text() + "x,U9,I9,5,1262304000\n")
    changed, _ = raw.read(folder)
    assert len(changed.interactions) == len(expected.interactions) + 1
    assert len(staged_files(folder).keys() - first.keys()) == 1


def test_half_a_staged_file_of_a_killed_run_is_not_used(make_raw, tmp_path):
    raw, folder = make_raw("csv"), tmp_path / "staging"
    expected, _ = raw.read(folder)
    names = list(staged_files(folder))
    (folder / "work").mkdir()
    for name in names:
        (folder / name).rename(folder / "work" / name)  # where it lies until it is whole
        (folder / "work" / name).write_bytes(b"PAR1")
    again, _ = raw.read(folder)
    assert np.array_equal(again.interactions.time, expected.interactions.time)
    assert sorted(staged_files(folder)) == sorted(names)


def test_bad_input_leaves_nothing(make_raw, tmp_path):
    raw, folder = make_raw("csv"), tmp_path / "staging"
    raw.ratings.write_bytes(b"")
    with pytest.raises(UserError):
        raw.read(folder)
    assert not folder.exists()


def test_little_memory_spills_and_changes_nothing(make_raw, monkeypatch):
    raw = make_raw("csv")
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 40_000, 200_000), rng.integers(0, 30_000, 200_000)
    lines = [
        f"x,USER-{u:030d},ITEM-{i:030d},5,{1_300_000_000 + k}"
        for k, (u, i) in enumerate(zip(user, item, strict=True))
    ]
    raw.ratings.write_text("\n".join(['extra,who,"a ""thing""",stars,at; --', *lines]) + "\n")
    raw.config.sizes = {"evaluation": 0}
    raw.config.table.update({"items_file": "", "users_file": ""})
    expected, _ = raw.read()
    monkeypatch.setattr("r2rec_jax.data.raw_files.MEMORY", "96MB")
    monkeypatch.setattr("r2rec_jax.data.columns.LONGEST_LINE", 1 << 20)
    again, _ = raw.read()
    for name in ("user", "item", "time"):
        assert np.array_equal(getattr(again.interactions, name), getattr(expected.interactions, name))
    assert len(np.unique(user)) == again.interactions.n_users


def test_a_ctrl_c_inside_duckdb_is_one(tmp_path):
    class Interrupted:
        def execute(self, _):
            raise RuntimeError("Query interrupted")

        def close(self):
            pass

    with Stage(tmp_path / "staging") as stage:
        stage.database.close()
        stage.database = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            stage.execute("SELECT 1")
    assert not (tmp_path / "staging").exists()
