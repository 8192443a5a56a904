"""The bench command: table, JSON file, and what it refuses."""

import dataclasses
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from launch import bench
from r2rec_jax.bench.result import row
from r2rec_jax.runtime.errors import UserError

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
        row("fast", [1.0, 1.1, 0.9], [2.0, 2.0, 2.0], "s", target=1.5, limit=2.54),
        row("slow step", [300.0], [200.0], "MB", target=1.0),
        row("alone", [12345.0], None, "MB", target=1.0),
        row("plain", [1.0], [1.0], "s"),
    ]
    assert bench.table(rows).splitlines() == [
        "           ours           peer                   ratio  target   limit  met",
        "fast       1.00 s ±10%    2.00 s ±0%             2.00x  >= 1.5x  2.54x  yes",
        "slow step  300 MB ±0%     200 MB ±0%             0.67x  >= 1x           NO",
        "alone      12,345 MB ±0%  no peers' environment         >= 1x",
        "plain      1.00 s ±0%     1.00 s ±0%             1.00x",
    ]


def test_the_drift():
    def before(name, ours, peer=None, unit="s"):
        return dataclasses.asdict(row(name, ours, peer, unit))

    rows = [
        row("slower", [2.0, 2.1, 1.9], None, "s"),
        row("noisy", [2.0, 3.0, 1.9], None, "s"),
        row("faster rate", [200.0], None, "examples/s"),
        row("busy machine", [2.0], [4.0], "s"),
        row("new one", [1.0], None, "s"),
    ]
    earlier = [
        before("slower", [1.0, 1.1, 0.9]),
        before("noisy", [1.5, 1.7, 1.4]),
        before("faster rate", [100.0], unit="examples/s"),
        before("busy machine", [1.0], [2.0]),
        before("old one", [1.0]),
    ]
    lines = [re.split(r"  +", line) for line in bench.drift(rows, earlier).splitlines()[1:]]
    assert [(line[0], line[-1]) for line in lines] == [
        ("slower", "WORSE"),
        ("noisy", "within spread"),
        ("faster rate", "better"),
        ("busy machine", "within spread"),  # both sides take twice as long
        ("new one", "new"),
        ("old one", "gone"),
    ]
    assert lines[0][1:4] == ["1.00 s ±10%", "2.00 s ±5%", "+100%"]
    assert lines[3][4:7] == ["2.00x", "2.00x", "+0%"]


def test_every_suite_is_among_all(monkeypatch, tmp_path):
    """With suites played by a process that fails for one of them: the others are still measured."""
    monkeypatch.chdir(tmp_path)
    started = []

    def start(command, **_):
        started.append(command[3:])
        return subprocess.CompletedProcess(command, 2 if "chains" in command else 0)

    monkeypatch.setattr(bench.subprocess, "run", start)
    values = {"out": None, "against": None, "peers": "python", "quick": True, "overwrite": False}
    monkeypatch.setattr(bench, "FLAGS", types.SimpleNamespace(**values))
    with pytest.raises(UserError, match=r"failed \(see their output above\): chains"):
        bench._measure_all()
    suites = bench.SUITES
    assert [command[0] for command in started] == [*suites]
    assert all(command[1:] == ["--peers=python", "--quick"] for command in started)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "sft.json").touch()
    with pytest.raises(UserError, match="already exists"):
        bench._measure_all()
    assert len(started) == len(suites)  # nothing was begun


def test_every_suite_is_a_function_and_no_module_is_left_out():
    """A new file of r2rec_jax/bench is a suite or a helper of suites."""
    functions = [
        getattr(importlib.import_module(f"r2rec_jax.bench.{m}"), f) for m, f in bench.SUITES.values()
    ]
    assert all([*inspect.signature(one).parameters] == ["peers", "quick"] for one in functions)
    files = {path.stem for path in (ROOT / "r2rec_jax" / "bench").glob("*.py")}
    helpers = {"__init__", "device", "models", "random_programs", "result", "table"}
    assert files - helpers == {module for module, _ in bench.SUITES.values()}


@pytest.mark.slow
def test_a_suite_writes_its_rows(tmp_path):
    done = run("load", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no peers' environment" in done.stdout and "written to bench/load.json" in done.stdout
    rows = json.loads((tmp_path / "bench" / "load.json").read_text())
    assert len(rows) == 6
    for one in rows:
        assert set(one) == {"name", "ours", "peer", "unit", "ratio", "target", "met", "spread", "limit"}
        assert one["ours"] > 0 and one["peer"] is one["ratio"] is one["met"] is None
    again = run("load", "--quick", cwd=tmp_path)
    assert again.returncode == 2 and again.stderr.count("\n") == 1 and "--overwrite" in again.stderr


@pytest.mark.parametrize("arguments", [(), ("lod",), ("load", "load"), ("result",)])
def test_only_suites_are_run(tmp_path, arguments):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and not any(tmp_path.iterdir())
    assert done.stderr.startswith("error: name one suite of ") and "load, " in done.stderr
