"""`python -m tests.chaos`: real commands really killed; and its flags."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def chaos(*flags, cwd) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *flags],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_commands_that_are_killed_end_as_if_they_were_not(tmp_path):
    done = chaos("--stages=annotate,baselines", "--kills=2", "--workdir=chaos", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "chaos" / "chaos.json").read_text())
    stages = record["stages"]
    assert [(row["stage"], row["passed"]) for row in stages] == [("annotate", True), ("baselines", True)]
    assert all(sum(row["kills"].values()) == 2 and row["ends"] for row in stages)
    trained = tmp_path / "chaos" / "whole" / "baselines" / "out" / "sasrec" / "metrics.jsonl"
    assert "train/loss" in trained.read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--stages=sft,frobnicate",), "'frobnicate' is none of prepare, annotate"),
        (("--kills=0",), "kills"),
        (("--config=configs/sft.py",), "has no flag --config"),
        (("sft",), "unexpected argument 'sft'"),
        (("--workdir=full",), "holds files but no chaos.json"),
        (("--workdir=done",), "add --overwrite"),
        (("--workdir=file",), "is a file"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, flags, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "chaos.json").touch()
    (tmp_path / "file").touch()
    done = chaos(*flags, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr
    assert not (tmp_path / "runs").exists() and (tmp_path / "full" / "thesis.tex").exists()
