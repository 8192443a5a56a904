"""Shared memory and semaphores of a run that was killed."""

import sys
import time

import pytest

from tests.chaos.process import Orphans, Running, segments

RUN = """
import multiprocessing, sys, time
from multiprocessing.shared_memory import SharedMemory
from r2rec_jax.runtime import shared_memory
if __name__ == "__main__":
    if sys.argv[1] == "cleaned":
        shared_memory.start()
        shared_memory.start()  # there is one
    kept = multiprocessing.get_context("spawn").Lock(), SharedMemory(create=True, size=100)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(("how", "left"), [("cleaned", 0), ("as Python does it", 2)])
def test_what_is_left_when_the_whole_group_is_killed(tmp_path, how, left):
    with Running([sys.executable, "-c", RUN, how], tmp_path, tmp_path / "log", {}) as running:
        while "ready" not in running.said():
            assert running.code is None, running.said()
            time.sleep(0.01)
        assert len(segments(running.mark)) == 2
        running.kill(alone=False)
    orphans = Orphans(limit_s=5.0)
    orphans.expect(running.mark)
    orphans.settle()
    assert (orphans.count, orphans.segments, running.said()) == (0, left, "ready\n")
    assert not segments(running.mark)
