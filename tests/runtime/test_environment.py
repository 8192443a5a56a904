"""What commands find set when they start, read from real processes."""

import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from r2rec_jax.runtime import environment

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
    assert found["GLIBC_TUNABLES"] == environment.HUGE_PAGES
    assert found["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "r2rec_jax" / "compiled")
    assert found["TF_CPP_MIN_LOG_LEVEL"] == environment.LOG_LEVEL


def test_what_the_user_has_set_stays(start):
    theirs = {"GLIBC_TUNABLES": "glibc.malloc.check=0", "JAX_COMPILATION_CACHE_DIR": "/nowhere"}
    found = start(**theirs, TF_CPP_MIN_LOG_LEVEL="0")
    assert theirs.items() <= found.items() and found["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_a_reader_that_has_enough_ends_a_command_without_a_traceback():
    for reader, read in (
        ("head -1", "Trains an adapter"),
        ("true", ""),
    ):  # the latter is gone before a line is written
        command = f"{sys.executable} -m launch.train --help | {reader}"
        done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.startswith(read) and done.stderr == ""


@pytest.mark.parametrize(
    "setting",
    [
        "JAX_ENABLE_X64=1",
        "JAX_ENABLE_X64=True",
        "JAX_DEFAULT_MATMUL_PRECISION=bfloat16",
        "JAX_DEFAULT_PRNG_IMPL=rbg",
        "JAX_THREEFRY_PARTITIONABLE=0",
        "JAX_RANDOM_SEED_OFFSET=1",
        "JAX_DISABLE_JIT=1",
        "XLA_FLAGS=--xla_cpu_enable_fast_math",
    ],
)
def test_what_would_change_numbers_is_refused_by_name(setting):
    name, _, value = setting.partition("=")
    command = [sys.executable, "-m", "launch.report"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {name: value}, capture_output=True, text=True)
    told = f"error: the environment has {setting}, which changes numbers: unset it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


def test_every_setting_named_is_one_of_jax_and_as_it_is_by_itself():
    import jax

    for name, fine in environment.NUMBERS.items():
        value = jax.config.values[name.lower()]
        assert value is None or getattr(value, "name", str(value)).lower() in fine


def test_settings_that_change_no_number_are_the_users(start):
    theirs = {"JAX_ENABLE_X64": "0", "JAX_DEBUG_NANS": "1", "XLA_FLAGS": "--xla_cpu_enable_fast_math=false"}
    assert theirs.items() <= start(**theirs).items()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_among_the_imports_ends_in_one_line(tmp_path, number):
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "__init__.py").write_text((ROOT / "launch" / "__init__.py").read_text())
    (tmp_path / "launch" / "slow.py").write_text("import time; print('here', flush=True); time.sleep(60)")
    command = [sys.executable, "-m", "launch.slow"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)
    assert child.stdout.readline() == "here\n"
    child.send_signal(number)
    assert (child.communicate()[1], child.returncode) == ("interrupted\n", 130)


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
