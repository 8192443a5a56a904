"""Nothing around the process changes the data: time zone, locale, current folder, names of folders."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from configs.base import base
from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.prepared import candidates_hash
from r2rec_jax.data.sources import make_dataset

ROOT = Path(__file__).parents[2]
NAMES = ("rating=5", "user=u1", "a b'c\"d", "[1]{x,y}*?", "~", "%s\\n", "é")


def write_log(folder: Path) -> Path:
    """A log in Parquet with a time zone and in CSV without, items in CSV with letters beyond ASCII."""
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            """CREATE TABLE log AS SELECT 'u' || u AS "user", 'i' || ((u * 7 + k * 3) % 31) AS item,
            1 + (u + k) % 5 AS rating,
            TIMESTAMPTZ '2014-03-09 06:50:00+00' + INTERVAL (k * 10 + u) MINUTE AS "time"
            FROM range(9) a(u), range(6) b(k)"""
        )
        connection.table("log").write_parquet(str(folder / "log.parquet"))
        # The same, as text without a zone.
        naive = connection.table("log").project('"user", item, rating, CAST("time" AS TIMESTAMP) AS "time"')
        naive.write_csv(str(folder / "log.csv"))
    items = "".join(f"i{k};Amélie {k}\n" for k in range(31))
    (folder / "items.csv").write_bytes(f"item;title\n{items}".encode("cp1252"))
    return folder


def config_of(raw: Path, ratings: str):
    config = base().data
    config.update({"source": "table", "raw": str(raw), "min_likes": 1, "candidates": 5})
    config.sizes = {"evaluation": 5}
    config.table.update({"ratings": ratings, "items_file": "items.csv"})
    return config


def described(raw: Path, staging: Path | None = None) -> str:
    found = []
    for ratings in ("log.parquet", "log.csv"):
        dataset = make_dataset(config_of(raw, ratings), rules=Rules(), staging=staging)
        log = dataset.interactions
        facts = (log.time.tolist(), log.rating.tolist(), dataset.split.truth.tolist())
        found.append(ascii((*facts, list(dataset.catalog.title), candidates_hash(dataset.split))))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    "around",
    [
        {"TZ": "America/New_York", "LC_ALL": "C", "PYTHONUTF8": "0"},  # its summer time begins in the log
        {"TZ": "Asia/Kolkata", "LC_ALL": "th_TH.UTF-8", "LANG": "th_TH.UTF-8", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    ],
)
def test_time_zone_locale_and_current_folder(tmp_path, around):
    raw = write_log(tmp_path / "é" / "raw")
    code = "from tests.data.test_surroundings import *; print(described(Path('raw').resolve()))"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "TZ"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=raw.parent,
        env=env | {"PYTHONPATH": str(ROOT)} | around,
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr[-2000:]
    assert done.stdout.strip() == described(raw)
    assert "2014" not in done.stdout and str(1394347800) in done.stdout  # 06:50 in UTC


@pytest.mark.parametrize("name", NAMES)
def test_names_of_folders(tmp_path, monkeypatch, name):
    expected = described(write_log(tmp_path / "plain" / "raw"))
    odd = tmp_path / name
    raw = write_log(odd / "raw")
    assert described(raw, odd / "staging") == expected
    monkeypatch.chdir(tmp_path)
    assert described(Path(name) / "raw", Path(name) / "staging") == expected
