"""The harness on a run that resumes exactly, and on runs with a fault planted in them."""

import json
import sys
import uuid
from pathlib import Path

import pytest

from r2rec_jax.runtime.errors import UserError
from tests.chaos import harness, process
from tests.chaos.harness import Harness, Stage
from tests.chaos.table import table

FAKE = str(Path(__file__).parent / "fake.py")


@pytest.fixture
def marks(monkeypatch) -> list[str]:
    """Of the runs that this test's harness starts; others may be at work on the machine."""
    given, make = [], uuid.uuid4

    def note():
        given.append(make())
        return given[-1]

    monkeypatch.setattr(process.uuid, "uuid4", note)
    return given


def living(marks) -> list[int]:
    found = process.marked({mark.hex for mark in marks})
    assert len(found) == len(marks) > 1
    return [pid for pids in found.values() for pid in pids]


@pytest.fixture
def kill(tmp_path):
    """Kills the fake run with a fault; `kills` times."""

    def run(fault: str, kills: int = 12, orphan_s: float = 10.0):
        stage = Stage("fake", lambda folder: [sys.executable, FAKE, str(folder / "out"), fault])
        return Harness(tmp_path, {}, seed=0, orphan_s=orphan_s).kill(stage, kills)

    return run


def test_a_run_that_resumes_exactly_passes(kill, tmp_path):
    trial = kill("none", kills=16)
    assert trial.passed and trial.difference == ""
    assert trial.killed == sum(trial.kills.values()) == 16
    assert trial.runs == trial.killed + trial.ends and trial.ends >= 2
    assert trial.kills["writing"] > 0 and trial.kills["working"] > 0 and 0 < trial.alone < 16
    assert trial.left_out == ["time/step_s"] and trial.orphans == 0
    rows = (tmp_path / "whole" / "fake" / "out" / "log.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [*range(1, 31)]
    assert "yes" in table([trial]) and "not compared: time/step_s" in table([trial])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("repeats", "out/log.jsonl"),
        ("leaves", "should not be there"),
        ("chance", "two runs that nobody killed: out/log.jsonl [1] square"),
        ("ends early", "exit code 1: error: it does not know how to go on"),
    ],
)
def test_a_planted_fault_is_found(kill, fault, said):
    trial = kill(fault, kills=40)
    assert not trial.passed and said in trial.difference
    assert "NO" in table([trial]) and trial.difference in table([trial])


def test_a_run_that_hangs_is_killed_and_told(kill, marks, monkeypatch):
    monkeypatch.setattr(harness, "HANGS_S", 4.0)
    trial = kill("hangs", kills=40)
    assert not trial.passed and "s, without a sign of life for " in trial.difference
    assert not living(marks)


def test_a_process_that_outlives_its_run_is_counted_and_killed(kill, marks):
    trial = kill("leaves a process", kills=3, orphan_s=0.3)
    assert trial.difference == "" and not trial.passed
    assert trial.orphans >= 3 and trial.orphan_s >= 0.3
    assert not living(marks)


def test_shared_memory_that_is_left_is_counted_and_removed(kill, marks):
    trial = kill("leaves shared memory", kills=8, orphan_s=4.0)
    assert trial.difference == "" and not trial.passed and trial.orphans == 0
    # A run that is not killed, or killed alone, has a tracker that removes it.
    assert 0 < trial.segments <= 8 - trial.alone and f"  {trial.segments}  " in table([trial])
    assert not [path for mark in marks for path in process.segments(mark.hex)]


def test_a_stage_that_fails_unkilled_is_an_error(tmp_path):
    stage = Stage("fails", lambda _: [sys.executable, "-c", "import sys; sys.exit('no such thing')"])
    with pytest.raises(UserError, match="nobody killed it: exit code 1: no such thing"):
        Harness(tmp_path, {}, seed=0).whole(stage)
