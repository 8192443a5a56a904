"""One writer at a time, by locks of the kernel: seen between real processes."""

import errno
import fcntl
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.lock import Lock, locked

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from r2rec_jax.runtime.lock import locked

with locked(sys.argv[1], "the folder"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path/lock until it is told to end, or killed."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_has_it(tmp_path, holder):
    expected = re.escape(f"the folder is in use by another run (pid {holder.pid} on {socket.gethostname()})")
    for _ in range(2):
        with pytest.raises(UserError, match=expected), locked(tmp_path / "lock", "the folder"):
            pytest.fail("the block must not run")
    holder.communicate("")
    assert not any(tmp_path.iterdir())  # it cleaned up
    with locked(tmp_path / "lock", "the folder") as held:
        assert held


def test_a_killed_process_leaves_no_lock(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", "the folder") as held:
        assert held
    assert not any(tmp_path.iterdir())


def test_a_file_that_its_holder_removes_is_not_the_lock(tmp_path, monkeypatch):
    """Its holder is done between our opening the file and our locking it."""
    path, real, calls = tmp_path / "lock", fcntl.flock, []

    def flock(file, operation):
        if not calls:
            path.unlink()
        calls.append(file)
        return real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Lock(path, "the folder")
    assert len(calls) == 2 and lock.is_current()
    lock.close()


def test_what_stands_in_the_file_is_told_only_if_it_is_ours(tmp_path):
    lock = Lock(tmp_path / "lock", "the folder")
    (tmp_path / "lock").write_text("pid 1 on \x1b[31mhost\nerror: all is lost")
    with pytest.raises(UserError) as error:
        Lock(tmp_path / "lock", "the folder")
    assert str(error.value).startswith("the folder is in use by another run: wait")
    lock.close()


def test_a_file_system_without_locks_is_told_of_once(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):
        with locked(tmp_path / "lock", "the folder") as held:
            assert not held
    assert [record.getMessage()[:45] for record in caplog.records] == [
        "the folder: its file system has no locks (No "
    ]


def test_another_refusal_is_an_error(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output"):
        Lock(tmp_path / "lock", "the folder")
