"""One writer at a time on an object store: leases of real processes, on a server's process."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from r2rec_jax.runtime import lease
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.lease import Lease
from r2rec_jax.runtime.store import Store

ROOT = Path(__file__).parents[2]
HOLDER = """
import os, sys
from r2rec_jax.runtime import lease
from r2rec_jax.runtime.store import Store

def lost(line):
    print(line, flush=True)
    os._exit(2)

lease.RENEWED_S = 0.3
held = lease.Lease(Store(sys.argv[1]), lost)
print("held", flush=True)
sys.stdin.read()
held.close()
"""


@pytest.fixture
def holder(url):
    """A process that holds the lease of `url` until it is told to end, or killed."""
    command = [sys.executable, "-c", HOLDER, url]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def never(line: str) -> None:
    pytest.fail(line)


def test_the_second_is_told_who_has_it(url, holder):
    with pytest.raises(UserError) as caught:
        Lease(Store(url), never)
    expected = (
        f"{url} is in use by another run (pid {holder.pid} on {socket.gethostname()}): wait until it ends"
    )
    assert str(caught.value).startswith(expected)


def test_what_is_given_back_is_free_at_once(url, holder, monkeypatch):
    monkeypatch.setattr(lease, "LAPSED_S", 1e6)
    holder.communicate("")
    held = Lease(Store(url), never)
    held.close()
    Lease(Store(url), never).close()


def test_a_killed_process_is_followed_when_its_lease_has_lapsed(url, holder, monkeypatch):
    monkeypatch.setattr(lease, "LAPSED_S", 2.0)
    holder.kill()
    holder.wait()
    held = Lease(Store(url), never)
    assert held.assure() is None
    assert Store(url).get(lease.NAME).data.startswith(f"pid {os.getpid()} on".encode())
    held.close()


def test_who_slept_too_long_learns_that_another_has_it(url, holder, monkeypatch):
    monkeypatch.setattr(lease, "LAPSED_S", 2.0)
    holder.send_signal(signal.SIGSTOP)
    held = Lease(Store(url), never)
    holder.send_signal(signal.SIGCONT)
    assert "another run has taken it" in holder.stdout.readline()
    assert holder.wait() == 2
    held.assure()
    held.close()


def test_a_lost_answer_costs_no_lease(url, monkeypatch):
    """The request is sent again, and its condition is that of the first, which was obeyed."""
    held = Lease(Store(url), never)
    put = Store.put

    def twice(self, name, data, instead_of=b""):
        put(self, name, data, instead_of)
        return put(self, name, data, instead_of)

    monkeypatch.setattr(Store, "put", twice)
    monkeypatch.setattr(lease, "LAPSED_S", 0.0)
    held.assure()
    held.close()
