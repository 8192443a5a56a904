"""The bench command: table, JSON file, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import bench
from r2rec_jax.bench.result import row

ROOT = Path(__file__).parents[2]


def run(*flags, cwd):
    return subprocess.run(
        [sys.executable, "-m", "launch.bench", *flags],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_table():
    rows = [
        row("fast", [1.0, 1.1, 0.9], [2.0, 2.0, 2.0], "s", target=1.5),
        row("slow step", [300.0], [200.0], "MB", target=1.0),
        row("alone", [12345.0], None, "MB", target=1.0),
        row("plain", [1.0], [1.0], "s"),
    ]
    assert bench.table(rows).splitlines() == [
        "           ours           peer                   ratio  target   met",
        "fast       1.00 s ±10%    2.00 s ±0%             2.00x  >= 1.5x  yes",
        "slow step  300 MB ±0%     200 MB ±0%             0.67x  >= 1x    NO",
        "alone      12,345 MB ±0%  no peers' environment         >= 1x",
        "plain      1.00 s ±0%     1.00 s ±0%             1.00x",
    ]


@pytest.mark.slow
def test_a_suite_writes_its_rows(tmp_path):
    done = run("load", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no peers' environment" in done.stdout and "written to bench/load.json" in done.stdout
    rows = json.loads((tmp_path / "bench" / "load.json").read_text())
    assert len(rows) == 6
    for one in rows:
        assert set(one) == {"name", "ours", "peer", "unit", "ratio", "target", "met", "spread"}
        assert one["ours"] > 0 and one["peer"] is one["ratio"] is one["met"] is None
    again = run("load", "--quick", cwd=tmp_path)
    assert again.returncode == 2 and again.stderr.count("\n") == 1 and "--overwrite" in again.stderr


@pytest.mark.parametrize("arguments", [(), ("lod",), ("load", "load"), ("result",)])
def test_only_suites_are_run(tmp_path, arguments):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and not any(tmp_path.iterdir())
    assert done.stderr.startswith("error: name one suite of ") and "load" in done.stderr
