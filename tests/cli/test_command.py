"""The wrapper of every command, run as a user runs it: a process, its exit code, its stderr."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CONFIG = """
from ml_collections import ConfigDict

from r2rec_jax.runtime.errors import UserError

def get_config(preset="default"):
    if preset not in ("default", "quickstart"):
        raise {error}(f"unknown preset {{preset}}: did you mean quickstart?")
    steps = 3 if preset == "default" else 1
    return ConfigDict(dict(steps=steps, optimizer=dict(lr=1e-3), shape=(1, 2), greedy=True))
"""

COMMAND = """
import atexit, hashlib, resource, threading, time

from r2rec_jax.cli import command
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metric_writer import StepLog
from r2rec_jax.runtime.workdir import claim

def say_ready_once_busy(clock=time.pthread_getcpuclockid(threading.get_ident())):
    begun = time.clock_gettime(clock)
    while time.clock_gettime(clock) < begun + 0.2:
        time.sleep(0.01)
    print("ready", flush=True)

def end_slowly():
    print("ending", flush=True)
    time.sleep(1)

def main(config, workdir, overwrite):
    if config.steps == 0:
        raise UserError("two\\nlines")
    if config.steps == -1:
        raise RuntimeError("a bug")
    if config.steps == -2:
        print("ready", flush=True)
        time.sleep(60)
    if config.steps == -3:
        threading.Thread(target=say_ready_once_busy, daemon=True).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    if -7 < config.steps <= -4:
        claim(workdir, config, overwrite)
    if config.steps == -4:
        print("ready", flush=True)
        time.sleep(60)
    if config.steps == -7:
        atexit.register(end_slowly)
        print("ready", flush=True)
        time.sleep(60)
    if config.steps == -5:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        for step in range(100):
            StepLog(workdir / "log.jsonl").append(step, {"text": 70 * "x"})
    print(config.steps, config.optimizer.lr, config.shape, config.greedy, workdir, overwrite)

command.run(main, resumes=RESUMES)
"""


@pytest.fixture
def start(tmp_path):
    """start(*flags) -> the process of a command in a folder with config files."""
    (tmp_path / "config.py").write_text(CONFIG.format(error="UserError"))
    (tmp_path / "strict.py").write_text(CONFIG.format(error="ValueError"))
    (tmp_path / "plain.py").write_text("def get_config():\n    return {}\n")

    def start(*flags, resumes=True):
        code = COMMAND.replace("RESUMES", str(resumes))
        (tmp_path / "command_under_test.py").write_text(code)
        return subprocess.Popen(
            [sys.executable, "command_under_test.py", *flags],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run(start):
    """run(*flags) -> (exit code, stdout, stderr)."""

    def run(*flags):
        process = start(*flags)
        out, err = process.communicate()
        return process.returncode, out, err

    return run


def test_config_preset_and_overrides_reach_main(run):
    assert run("--config=config.py", "--workdir=w") == (0, "3 0.001 (1, 2) True w False\n", "")
    flags = ("--config.optimizer.lr=2", "--config.shape=(4,)", "--noconfig.greedy", "--overwrite")
    code, out, err = run("--config", "config.py:quickstart", "--workdir", "w", *flags)
    assert (code, out, err) == (0, "1 2.0 (4,) False w True\n", "")


W = "--workdir=w"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((W,), "--config is missing: pass a config file, e.g. --config=configs/grpo.py"),
        (
            ("--config=", W),
            "--config is missing: pass a config file, e.g. --config=configs/grpo.py",
        ),
        (
            ("--config.steps=1", W),
            "--config is missing: pass a config file before any --config.field",
        ),
        (
            ("--config=config.py",),
            "--workdir is missing: pass the folder to write to, e.g. --workdir=runs/a",
        ),
        (
            ("--config=config.py", "--workdir=gs://bucket/run"),
            "--workdir=gs://bucket/run is a URL, not a folder: mount or sync the bucket (docs/machines.md) "
            "and pass the folder",
        ),
        (("--config=confg.py", W), "unknown config file confg.py: did you mean config.py?"),
        (("--config=no/such.py", W), "unknown config file no/such.py"),
        (("--config=config.py:quik", W), "unknown preset quik: did you mean quickstart?"),
        (
            ("--config=strict.py:quik", W),
            "strict.py:quik: unknown preset quik: did you mean quickstart?",
        ),
        (("--config=plain.py:quik", W), "config file plain.py takes no preset"),
        (
            ("--config=config.py", W, "--config.lr=1"),
            "unknown config field lr: did you mean optimizer.lr?",
        ),
        (
            ("--config=config.py", W, "--config.optimiser.lr=1"),
            "unknown config field optimiser.lr: did you mean optimizer.lr?",
        ),
        (
            ("--config=config.py", W, "--config.steps=many"),
            "--config.steps=many: the value must be of type int",
        ),
        (
            ("--config=config.py", W, "--config.greedy=perhaps"),
            "--config.greedy=perhaps: the value must be of type bool",
        ),
        (("--config=config.py", "--wrokdir=w"), "unknown flag --wrokdir: did you mean --workdir?"),
        (
            ("--config=config.py", W, "more"),
            "unexpected argument 'more': flags are written --name=value",
        ),
        (("--config=config.py", W, "--config.steps=0"), "two lines"),
        (
            ("--config=config.py", W, "--config.optimizer=3"),
            "--config.optimizer is a section: set its fields, e.g. --config.optimizer.lr",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, flags, line):
    assert run(*flags) == (2, "", f"error: {line}\n")


NESTED = "-" * 20_000 + "1"


@pytest.mark.parametrize(
    "flag",
    [
        f"--config.shape={NESTED}",
        f"--config.{NESTED}=1",
        f"--config={'x' * 300}.py",
        f"--config.{'y' * 99_999}=1",
    ],
)
def test_a_flag_beyond_measure_is_one_line(run, flag):
    code, out, err = run("--config=config.py", W, flag)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 3000


@pytest.mark.parametrize("flag", ["--" + "a/" * 7_500, "--nothing"])
def test_an_unknown_flag_without_a_config_is_one_line(run, flag):
    code, out, err = run(W, flag)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 3000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 3\n", "own.py has no get_config(): name a file of configs/ or one of your own like them"),
        ("def get_config(:\n", "own.py:1: invalid syntax; a config is a Python file with get_config()"),
        ("import absent_module\n", "own.py: ModuleNotFoundError: No module named 'absent_module'"),
        ("def get_config():\n    return 1 / 0\n", "own.py: ZeroDivisionError: division by zero"),
    ],
)
def test_a_file_that_is_no_config_is_one_line(run, tmp_path, text, message):
    (tmp_path / "own.py").write_text(text)
    assert run("--config=own.py", W) == (2, "", f"error: {message}\n")


def test_an_error_holds_no_escape(run):
    code, _, err = run("--config=config.py", W, "--config.\x1b[2J\u202elr=1")
    assert code == 2 and err.startswith("error: unknown config field \\x1b[2J\\u202elr: did you mean")


def test_a_bug_keeps_its_traceback(run):
    code, _, err = run("--config=config.py", W, "--config.steps=-1")
    assert code == 1
    assert "Traceback" in err
    assert "RuntimeError: a bug" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_says_how_to_go_on(start, number):
    flags = ("--config=config.py", "--workdir=a folder", "--config.steps=-4", "--overwrite")
    process = start(*flags)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    # The workdir has been cleared by then: another time would lose what is in it.
    again = shlex.join([sys.executable, "command_under_test.py", *flags[:3]])
    assert (process.returncode, err) == (0, f"stopped; resume with: {again}\n")


def test_a_signal_while_it_ends_changes_nothing(start):
    """What a shell passes on arrives when Python is already on its way out."""
    process = start("--config=config.py", W, "--config.steps=-7")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "ending\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and err.startswith("stopped; resume with: ")


def test_told_to_stop_before_anything_was_cleared_it_still_overwrites(start):
    process = start("--config=config.py", W, "--config.steps=-2", "--overwrite")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and err.endswith(" --overwrite\n")


def test_a_command_that_begins_anew_is_interrupted(start):
    process = start("--config=config.py", W, "--config.steps=-2", resumes=False)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted\n")


def test_a_second_signal_stops_at_once_what_python_does_not_see(start):
    """In compiled code, as XLA's compiler is; but the same signal passed on twice is one."""
    process = start("--config=config.py", W, "--config.steps=-3")
    assert process.stdout.readline() == "ready\n"
    for wait_s in (0.2, 1.5):
        process.send_signal(signal.SIGTERM)
        time.sleep(wait_s)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.startswith("\nstopped at once") and err.count("\n") == 2


def test_a_full_disk_is_one_line_and_exit_code_2(run, tmp_path):
    flags = ("--config=config.py", W, "--config.steps=-5")
    code, _, err = run(*flags)
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("error: w/log.jsonl: File too large: make room there, ")
    assert err.endswith(f"resume with: {shlex.join([sys.executable, 'command_under_test.py', *flags])}\n")
    lines = (tmp_path / "w" / "log.jsonl").read_text().splitlines()
    assert len(lines) > 5 and all(line.endswith('"}') for line in lines)


def test_a_second_run_in_a_workdir_is_refused(start, run):
    flags = ("--config=config.py", W, "--config.steps=-4")
    process = start(*flags)
    assert process.stdout.readline() == "ready\n"
    for more in ((), ("--overwrite",)):
        code, _, err = run(*flags, *more)
        assert code == 2 and err.count("\n") == 1
        assert err.startswith(f"error: --workdir w is in use by another run (pid {process.pid} on ")
    process.kill()
    process.communicate()
    assert run("--config=config.py", W, "--config.steps=-6", "--overwrite")[0] == 0


def test_help_names_the_flags(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(f"  --{flag}" in out for flag in ("config", "workdir", "overwrite"))


def test_help_names_the_fields_of_a_config(run):
    code, out, err = run("--config=config.py:quickstart", "--help")
    assert (code, err) == (0, "")
    assert "  optimizer.lr = 0.001\n" in out and "  shape = (1, 2)\n" in out
    code, out, err = run("--config=config.py:quik", "--help")
    assert (code, err) == (2, "error: unknown preset quik: did you mean quickstart?\n")
