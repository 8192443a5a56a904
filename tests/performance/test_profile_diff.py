"""Two hand-made profiles whose differences are known."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.compare import _read
from r2rec_jax.performance.profile_diff import compare
from r2rec_jax.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
HLO = {"operations": 100, "fusions": 40, "copies": 9, "bytes of copies": 1000.0}


def scope(name: str, seconds: float, direction: str = "forward", program: str = "step") -> dict:
    return {"program": program, "scope": name, "direction": direction, "seconds": seconds}


A = {
    "stage": "sft",
    "model": "tiny",
    "device": "cpu",
    "devices": 1,
    "mesh": {"data": 1},
    "jax": "0.11.2",
    "shapes": {"B": 2},
    "steps": {"median_s": 1.0},
    "utilisation": {"update": {"tokens_per_s": 500.0, "mfu_4n": 0.2}},
    "idle": {"seconds": 0.1},
    "memory": {"measured": 2e9},
    "compile": {"programs": 3, "seconds": 4.0},
    "ceilings": {"flops": 1e11, "bandwidth": 1e10},
    "phases": [{"name": "update", "seconds": 0.9}, {"name": "input", "seconds": 0.1}],
    "scopes": [scope("mlp", 0.5), scope("mlp", 0.2, "backward"), scope("attention", 0.2)],
    "programs": [{"name": "step", "hlo": HLO}],
}


def changed() -> dict:
    b = copy.deepcopy(A)
    b["steps"]["median_s"] = 1.25
    b["scopes"] = [scope("mlp", 0.501), scope("mlp", 0.5, "backward"), scope("attention", 0.15)]
    b["scopes"].append(scope("new", 0.01))
    b["programs"] = [{"name": "step", "hlo": HLO | {"copies": 11, "bytes of copies": 2500.0}}]
    b["programs"][0]["hlo"]["sent: all-reduce"] = 64.0
    b["programs"].append({"name": "score", "hlo": HLO})
    return b


def test_what_got_slower_comes_first():
    lines = compare(A, changed()).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("scope,"))
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["step:", "mlp", "(backward)", "0.2000", "0.5000", "+0.3000"],
        ["step:", "attention", "0.2000", "0.1500", "-0.0500"],
        ["step:", "new", "0.0000", "0.0100", "+0.0100"],
    ]
    assert lines[start + 4] == ""  # the forward pass of mlp moved by a thousandth of the step
    assert ["step,", "s", "1", "1.25", "1.25x"] in [line.split() for line in lines]


def test_the_hlo_that_differs():
    lines = compare(A, changed()).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("HLO"))
    assert [" ".join(line.split()) for line in lines[start + 1 :]] == [
        "step: copies 9 11 +2",
        "step: bytes of copies 1,000 2,500 +1,500",
        "step: sent: all-reduce 0 64 +64",
        "score: only in B",
    ]


def test_equal_profiles_and_unlike_ones():
    text = compare(A, A)
    assert (
        "no scope differs" in text
        and "HLO counts of all programs are equal" in text
        and "differs:" not in text
    )
    other = A | {"device": "NVIDIA H200"}
    assert compare(A, other).startswith("device differs: cpu in A, NVIDIA H200 in B")
    busy = A | {"ceilings": {"flops": 0.7e11, "bandwidth": 1e10}}
    assert compare(A, busy).startswith("the ceilings differ: other load")
    assert "ceilings differ" not in compare(A, A | {"ceilings": {"flops": 0.9e11, "bandwidth": 1.1e10}})


def test_a_long_list_is_cut():
    scopes = [scope(f"layer {k}", 0.1 + k) for k in range(25)]
    other = [scope(f"layer {k}", 0.2 + k) for k in range(25)]
    lines = compare(A | {"scopes": scopes}, A | {"scopes": other}).splitlines()
    assert sum(line.startswith("step: layer") for line in lines) == 20 and "and 5 more" in lines


def test_the_command_reads_folders_and_files(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(A))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(changed()))
    done = subprocess.run(
        [sys.executable, "-m", "launch.compare", tmp_path, other],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == compare(A, changed()) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("{", "is not JSON"), ("[1]", "is no profile"), ('{"a": 1}', "is no profile")],
)
def test_what_is_no_profile_is_refused(tmp_path, content, message):
    path = tmp_path / "profile.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        _read(path)
