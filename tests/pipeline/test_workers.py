"""Worker processes and reading ahead: the same batches, no accelerator, nothing left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax._src import xla_bridge
from ml_collections import ConfigDict

from r2rec_jax.data import prepared
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.pipeline.batches import batches, collate
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.runtime.errors import UserError
from tests.chaos.process import Orphans, Running, segments

ROOT = Path(__file__).parents[2]
LENGTHS = np.random.default_rng(4).integers(1, 200, 61)
PROMPT = ConfigDict({"wording": "compact", "answer": "titles", "places": 3, "reasoning": True, "likes": 5})
PROMPT.update({"history": 0, "item_tokens": False})
PROMPT.update({"chains": 3, "chain_length": 1, "chain_selection": "uniform", "buckets": (256, 320, 800)})


class Examples:
    """61 examples; `broken` is one that cannot be made."""

    def __init__(self, broken: int | None = None):
        self.broken = broken

    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if k == self.broken:
            raise UserError(f"example {k} is broken")
        row = np.arange(LENGTHS[k], dtype=np.int32) + k
        return {"prompt": row, "response": row[:7], "mask": np.ones(len(row[:7]), np.float32)}


def to_completions(examples) -> CompletionBatch:
    return collate(examples, (64, 128, 256), (8,))


def reader(workers: int, source=None, to_batch=to_completions, similar=True, batch_size=4, **options):
    source = Examples() if source is None else source
    lengths = LENGTHS if similar else None
    options = {"seed": 3, "shuffle": True, "lengths": lengths, "workers": workers} | options
    return batches(source, batch_size=batch_size, to_batch=to_batch, **options)


def same(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.slow
@pytest.mark.parametrize("similar", [True, False])
def test_no_number_of_workers_changes_the_batches(similar):
    with_threads = reader(0, similar=similar)
    whole = [next(with_threads) for _ in range(40)]  # more than two epochs
    assert not similar or {batch.prompt.shape[1] for batch in whole} == {64, 128, 256}
    states = []
    for workers, stop in ((1, 17), (2, 19)):
        iterator = reader(workers, similar=similar)
        same([next(iterator) for _ in range(stop)], whole[:stop])
        states.append((stop, iterator.get_state()))
        next(iterator)  # what is read after the state was taken does not count
        iterator.set_state(iterator.get_state() | {"next_index": 2})  # in the midst of reading ahead
        same([next(iterator) for _ in range(3)], whole[2:5])
        iterator.close()
    # What one number of workers left, any other goes on with.
    for (stop, state), workers in zip(states, (2, 0), strict=True):
        iterator = reader(workers, similar=similar)
        iterator.set_state(state)
        same([next(iterator) for _ in range(40 - stop)], whole[stop:])
        iterator.close()


def what_a_worker_sees(examples) -> dict:
    seen = {"pid": os.getpid(), "started": xla_bridge.backends_are_initialized()}
    seen["platforms"], seen["devices"] = jax.config.jax_platforms, None
    if "ask" in examples:
        seen["devices"] = [device.platform for device in jax.devices()]
    return seen


@pytest.mark.slow
def test_workers_start_no_backend_and_can_start_the_cpus_alone():
    with_two = reader(2, to_batch=what_a_worker_sees, similar=False)
    seen = [next(with_two) for _ in range(30)]
    assert len({one["pid"] for one in seen}) == 2 and os.getpid() not in {one["pid"] for one in seen}
    assert not any(one["started"] for one in seen)
    assert {one["platforms"] for one in seen} == {"cpu"}
    with_two.close()
    asked = reader(1, source=["ask"] * 9, to_batch=what_a_worker_sees, similar=False)
    assert set(next(asked)["devices"]) == {"cpu"}
    asked.close()


@pytest.mark.parametrize("command", ["train", "reproduce", "bench"])
def test_importing_a_command_starts_no_backend(command):
    """A worker imports the command that started it, before it is told to leave the accelerator alone."""
    code = f"import launch.{command}\nfrom jax._src import xla_bridge as x\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}raise SystemExit(x.backends_are_initialized())"], cwd=ROOT
    )
    assert done.returncode == 0


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Kai gave it a 4, so it fits."], 300).save(str(folder / "tokenizer.json"))
    return Chat(folder)


@pytest.mark.slow
def test_ranking_prompts_of_workers(dataset, chat, tmp_path):
    prepared.save(dataset, tmp_path / "data")
    mapped = prepared.load(tmp_path / "data")
    here = RankingPrompts(dataset, dataset.split.users["sft"], chat, PROMPT, seed=1)
    threads = reader(0, source=here, to_batch=list, lengths=here.widths())
    wanted = [next(threads) for _ in range(12)]
    for source in (dataset, mapped):
        there = RankingPrompts(source, source.split.users["sft"], chat, PROMPT, seed=1)
        iterator = reader(2, source=there, to_batch=list, lengths=there.widths())
        for batch in wanted:
            got = next(iterator)
            assert [prompt.text for prompt in got] == [prompt.text for prompt in batch]
            assert [prompt.titles for prompt in got] == [prompt.titles for prompt in batch]
            same([prompt.tokens for prompt in got], [prompt.tokens for prompt in batch])
        iterator.close()


def test_fewer_than_no_workers_are_refused():
    with pytest.raises(UserError, match=r"data\.workers=-1"):
        reader(-1)


@pytest.mark.slow
def test_a_users_error_comes_out_of_a_worker():
    iterator = reader(2, source=Examples(broken=40))
    with pytest.raises(UserError, match="example 40 is broken"):
        for _ in range(16):
            next(iterator)
    iterator.close()


def interrupt_workers() -> int:
    """As a terminal and a scheduler do to every process of a command. Returns how many there are."""
    workers = multiprocessing.active_children()
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    return len(workers)


@pytest.mark.slow
def test_signals_are_not_for_workers_and_close_ends_them():
    iterator, handlers = reader(2), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    iterator.start_prefetch()
    while not interrupt_workers():  # as soon as there is one
        time.sleep(0.001)
    for _ in range(4):
        next(iterator)
    assert interrupt_workers() == 2
    for _ in range(20):
        next(iterator)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    iterator.close()
    iterator.close()
    assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


ORPHANS = """
import os, signal
from tests.pipeline.test_workers import reader, what_a_worker_sees
if __name__ == "__main__":
    iterator = reader(2, to_batch=what_a_worker_sees)
    print(*{next(iterator)["pid"] for _ in range(8)}, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    """`multiprocessing` leaves them to run for ever."""
    (tmp_path / "orphans.py").write_text(ORPHANS)
    done = subprocess.run(
        [sys.executable, tmp_path / "orphans.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = done.stdout.split()
    assert done.returncode == -signal.SIGKILL and len(workers) == 2
    until = time.monotonic() + 20
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.1)


READS = """
import time
from tests.pipeline.test_workers import reader
if __name__ == "__main__":
    iterator = reader(1)
    next(iterator)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
def test_no_shared_memory_outlives_a_run_that_was_killed(tmp_path, alone):
    """Python's own cleaner is of the run's process group, and dies with it."""
    (tmp_path / "reads.py").write_text(READS)
    command = [sys.executable, str(tmp_path / "reads.py")]
    with Running(command, tmp_path, tmp_path / "log", {}) as running:
        while "ready" not in running.said():
            assert running.code is None, running.said()
            time.sleep(0.05)
        while not [path for path in segments(running.mark) if not path.name.startswith("sem.")]:
            time.sleep(0.05)  # a batch is on its way
        running.kill(alone)
    orphans = Orphans(limit_s=10.0)
    orphans.expect(running.mark)
    orphans.settle()
    assert (orphans.count, orphans.segments) == (0, 0)
    assert running.said() == "ready\n"


def _runs(pid: str) -> bool:
    try:  # an ended process stays in the table where nobody waits for it
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Watched:
    """Says which examples were asked for, and wakes whoever waits for more."""

    def __init__(self):
        self.asked, self.more = set(), threading.Condition()

    def __len__(self) -> int:
        return 64

    def __getitem__(self, k: int) -> int:
        with self.more:
            self.asked.add(k)
            self.more.notify_all()
        return k

    def wait_for(self, count: int) -> bool:
        with self.more:
            return self.more.wait_for(lambda: len(self.asked) >= count, timeout=10)


def test_the_next_prompts_are_made_while_a_step_takes_its_time():
    source = Watched()
    iterator = reader(0, source=source, to_batch=list, similar=False)
    iterator.start_prefetch()
    assert source.wait_for(4)  # before anybody has asked
    next(iterator)
    assert source.wait_for(4 + 2 * 4)  # the step of the first batch is still running
    iterator.close()


def test_batches_are_put_ahead_and_the_state_is_of_those_handed_out():
    put = Watched()

    def on_device(rows):
        put[int(rows[0])]
        return jax.device_put(np.array(rows))

    def fresh():
        return reader(0, source=range(64), to_batch=list, similar=False, shuffle=False, put=on_device)

    iterator = fresh()
    first = next(iterator)
    assert isinstance(first, jax.Array) and first.tolist() == [0, 1, 2, 3]
    assert put.wait_for(2)  # the second is on the device, nobody has asked
    assert iterator.get_state() == {"next_index": 1}
    resumed = fresh()
    resumed.set_state(iterator.get_state())
    assert next(resumed).tolist() == next(iterator).tolist() == [4, 5, 6, 7]
    iterator.close(), resumed.close()
