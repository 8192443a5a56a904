"""What commands find set when they start, read from real processes."""

import json
import os
import subprocess
import sys
import zlib
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


def age(path: Path, seconds: float) -> None:
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_a_start_drops_torn_programs_written_since_the_last(start, tmp_path):
    folder = tmp_path / "r2rec_jax" / "compiled"
    folder.mkdir(parents=True)
    whole = zlib.compress(os.urandom(10_000))
    content = {"whole-cache": whole, "torn-cache": whole[:-1], "half-cache": whole[:5000], "empty-cache": b""}
    content |= {"coded-otherwise-cache": b"\x28\xb5\x2f\xfd", "notes": b""}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    start(XDG_CACHE_HOME=str(tmp_path))
    kept = {"whole-cache", "coded-otherwise-cache", "notes", ".looked-at"}
    assert {path.name for path in folder.iterdir()} == kept
    for name in ("old-cache", "new-cache"):
        (folder / name).write_bytes(whole[:100])
    age(folder / "old-cache", 60)
    start(XDG_CACHE_HOME=str(tmp_path))
    assert {path.name for path in folder.iterdir()} == {*kept, "old-cache"}


COMPILE = """
import sys, jax, jax.numpy as jnp
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.arange(4.0)))
"""


def test_programs_as_jax_keeps_them_are_whole_and_a_torn_one_is_compiled_again(tmp_path):
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def compile_it() -> tuple[str, str]:
        command = [sys.executable, "-c", COMPILE]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    said, _ = compile_it()
    written = {path: path.read_bytes() for path in tmp_path.glob("*-cache")}
    process.drop_torn(tmp_path)
    assert written and written.keys() == {*tmp_path.glob("*-cache")}
    for path, data in written.items():
        path.write_bytes(data[: len(data) // 2])
    again, warned = compile_it()
    assert again == said and "Error reading persistent compilation cache" in warned
    process.drop_torn(tmp_path)
    assert not [*tmp_path.glob("*-cache")]
    assert compile_it() == (said, "")
    process.drop_torn(tmp_path)
    assert written.keys() == {*tmp_path.glob("*-cache")}
