"""The fuzzer finds what it looks for, and every target gets a few cases; for many see `make fuzz`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.case import TARGETS
from tests.fuzz.planted import FAULTS

ROOT = Path(__file__).parents[2]
SLOW = 2000  # targets with fewer cases than this of a million


def test_every_planted_fault_is_found_and_kept(tmp_path):
    counts = campaign.run("planted:Planted", 60, 1, tmp_path)
    assert counts["cases"] == 60 == counts["read"] + counts["refused"] + counts["findings"]
    assert counts["read"] and counts["refused"]
    kept = sorted((tmp_path / "planted:Planted").glob("*-*[0-9]"))
    found = {path.read_text(): path.name.partition("-")[0] for path in kept}
    wanted = {fault: kind for fault, kind in FAULTS.items() if kind}
    assert found.items() <= wanted.items() and set(found.values()) == set(wanted.values())
    # One of a kind and place is kept, the others are counted.
    assert len(kept) < counts["findings"]


def test_cases_are_a_function_of_seed_and_number(tmp_path):
    once, again, other = (campaign.run("hf-config", 40, seed, tmp_path) for seed in (3, 3, 4))
    assert [once[name] for name in ("read", "refused")] == [again[name] for name in ("read", "refused")]
    assert once["findings"] == other["findings"] == 0 and once["read"] and once["refused"]


# All in one process: each would take longer to start than to read.
PROGRAM = """
import json, sys
from pathlib import Path
from random import Random
from tests.fuzz.worker import judge, prepare

for name, cases in json.loads(sys.argv[1]).items():
    target, guard = prepare(name, Path(sys.argv[2]) / name)
    judged = [judge(target, target.make(Random(f"test {name} {k}")), guard) for k in range(cases)]
    print(json.dumps([name, judged]), flush=True)
"""


@pytest.mark.slow
def test_every_reader_reads_or_refuses(tmp_path):
    cases = {name: 6 if share < SLOW else 40 for name, (_, share) in TARGETS.items()}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(cases), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | campaign.SETTINGS,
        capture_output=True,
        text=True,
    )
    judged = dict(map(json.loads, done.stdout.splitlines()))
    assert judged.keys() == TARGETS.keys(), done.stderr[-3000:]
    for name, outcomes in judged.items():
        assert len(outcomes) == cases[name]
        assert not [what for kind, what in outcomes if kind not in ("read", "refused")], name


@pytest.mark.parametrize("arguments", [(), ("poem",), ("answer", "--cases=0"), ("answer", "more")])
def test_what_cannot_be_fuzzed_is_refused(arguments):
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: ")
