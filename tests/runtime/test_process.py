"""What commands find set when they start, read from real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r2rec_jax.runtime import process

ROOT = Path(__file__).resolve().parents[2]
# A module of the name that `python -m launch.NAME` has, which tells what it finds.
TELL = "import json, os, sys; print(json.dumps([dict(os.environ), os.getpid(), sys.argv]))"


@pytest.fixture
def start(tmp_path):
    """Starts `python -m launch.tell --flag`: with launch's own __init__."""
    launch = tmp_path / "launch"
    launch.mkdir()
    (launch / "__init__.py").write_text((ROOT / "launch" / "__init__.py").read_text())
    (launch / "tell.py").write_text(TELL)

    def run(**environment):
        known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        child = subprocess.Popen(
            [sys.executable, "-m", "launch.tell", "--flag", "a b"],
            cwd=tmp_path,
            env=known | {"PYTHONPATH": str(ROOT)} | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        found, pid, arguments = json.loads(child.communicate()[0])
        assert pid == child.pid and arguments[1:] == ["--flag", "a b"]
        return found

    return run


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting, on Linux")
def test_a_command_starts_with_huge_pages_and_a_cache_in_the_same_process(start, tmp_path):
    found = start(XDG_CACHE_HOME=str(tmp_path))
    assert found["GLIBC_TUNABLES"] == process.HUGE_PAGES
    assert found["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "r2rec_jax" / "compiled")
    assert found["TF_CPP_MIN_LOG_LEVEL"] == process.LOG_LEVEL


def test_what_the_user_has_set_stays(start):
    theirs = {"GLIBC_TUNABLES": "glibc.malloc.check=0", "JAX_COMPILATION_CACHE_DIR": "/nowhere"}
    found = start(**theirs, TF_CPP_MIN_LOG_LEVEL="0")
    assert theirs.items() <= found.items() and found["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_a_reader_that_has_enough_ends_a_command_without_a_traceback():
    command = f"{sys.executable} -m launch.train --help | head -1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("Trains:") and done.stderr == ""
