"""A run killed from inside, just before the change of a file that was asked for."""

import signal
import sys
import time

import pytest

from tests.chaos.process import Orphans, Running, marked

CHANGES = """
import os, shutil, subprocess, sys
folder = sys.argv[1]
open("/dev/null", "w").close()  # elsewhere
with open(folder + "/a.tmp", "w") as file:
    file.write("1")
os.replace(folder + "/a.tmp", folder + "/a")
os.mkdir(folder + "/b")
subprocess.run([sys.executable, "-c", "import sys; open(sys.argv[1] + '/b/c', 'w').close()", folder])
open(folder + "/a").read()  # no change
shutil.rmtree(folder + "/b")
"""
# What is there before each of its five changes, and which they are; another process makes b/c.
STEPS = [
    ([], "open a.tmp"),
    (["a.tmp"], "os.rename a.tmp"),
    (["a"], "os.mkdir b"),
    (["a", "b", "b/c"], "os.remove b/c"),
    (["a", "b"], "os.rmdir b"),
]


def run(tmp_path, at: int) -> Running:
    folder = tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, "-c", CHANGES, str(folder)]
    with Running(command, folder, tmp_path / "log", {}, at, alone=bool(at % 2)) as running:
        while running.code is None:
            time.sleep(0.01)
    return running


@pytest.mark.parametrize("at", range(1, 6))
def test_killed_before_a_change(tmp_path, at):
    running = run(tmp_path, at)
    there, said = STEPS[at - 1]
    assert running.code == -signal.SIGKILL and running.note() == said
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")) == there


def test_changes_are_counted(tmp_path):
    running = run(tmp_path, 0)
    assert (running.code, running.note(), running.said()) == (0, "5", "")


def test_what_a_killed_run_has_started_is_seen_to_end(tmp_path):
    child = "import time; time.sleep(0.4)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}], "
    code += "start_new_session=True); print('ready', flush=True); time.sleep(60)"
    with Running([sys.executable, "-c", code], tmp_path, tmp_path / "log", {}) as running:
        while "ready" not in running.said():
            time.sleep(0.01)
        running.kill(alone=False)
    assert len(marked({running.mark})[running.mark]) == 1
    orphans = Orphans(limit_s=20.0)
    orphans.expect(running.mark)
    orphans.settle()
    assert orphans.count == 0 and 0 < orphans.longest_s < 10
    assert marked({running.mark}) == {running.mark: []}
