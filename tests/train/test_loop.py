"""The training loop: interrupted and resumed it is the loop that was never interrupted."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from r2rec_jax.pipeline.batches import batches
from r2rec_jax.runtime.metrics import StepLog, read
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train import loop
from r2rec_jax.train.state import TrainState

STEPS = 11
OPTIMIZER = optax.adam(0.1)


class Source:
    """Eight examples, so that the run passes over them more than once."""

    def __len__(self):
        return 8

    def __getitem__(self, k):
        return np.float32(k)


@jax.jit
def update(state, batch):
    loss, grads = jax.value_and_grad(lambda t: jnp.mean((t["w"][None] - batch[:, None]) ** 2))(
        state.trainable
    )
    return state.apply_gradients(grads, OPTIMIZER), {"train/loss": loss}


class Advance:
    """A step that notes what it was given, and does `trouble` before it returns from `at`."""

    def __init__(self, phases, notes, at=None, trouble=None):
        self.phases, self.notes, self.at, self.trouble, self.seen = phases, notes, at, trouble, []

    def __call__(self, state, batch, step):
        self.seen.append((step, batch.tolist()))
        self.notes.append(step, {"batch": batch.tolist()})
        with self.phases("update"):
            state, metrics = update(state, batch)
        if step == self.at:
            self.trouble()
        return state, metrics


def make_config(log_every=1, checkpoint_every=4, evaluate_every=3) -> ConfigDict:
    train = {
        "steps": STEPS,
        "log_every": log_every,
        "checkpoint_every": checkpoint_every,
        "evaluate_every": evaluate_every,
    }
    return ConfigDict({"stage": "test", "train": train, "profile": {"steps": ""}})


def train(config, workdir, at=None, trouble=None):
    """One run of the command: everything made anew. Returns (state, advance)."""
    phases = Phases()
    notes = StepLog(workdir / "notes.jsonl")
    advance = Advance(phases, notes, at, trouble)
    examples = batches(Source(), batch_size=3, seed=1, shuffle=True, to_batch=np.stack)
    state = TrainState.create({"w": jnp.zeros(2)}, OPTIMIZER)
    state = loop.run(
        config,
        workdir,
        state,
        examples,
        advance,
        phases,
        lambda state: {"validation/w": state.trainable["w"].sum()},
        logs=(notes,),
    )
    return state, advance


def rows(workdir) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read(workdir)]


def noted(workdir) -> list[tuple]:
    lines = [json.loads(line) for line in (workdir / "notes.jsonl").read_text().splitlines()]
    return [(line["step"], line["batch"]) for line in lines]


def same(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)


def crash():
    raise RuntimeError("a bug")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return *train(make_config(), workdir), rows(workdir)


def test_a_run_takes_every_step_once_and_reports_it(whole):
    state, advance, written = whole
    assert int(state.step) == STEPS
    assert [step for step, _ in advance.seen] == list(range(1, STEPS + 1))
    assert [row["step"] for row in written if "train/loss" in row] == list(range(1, STEPS + 1))
    assert [row["step"] for row in written if "validation/w" in row] == [0, 3, 6, 9, STEPS]
    first_epoch = [value for _, batch in advance.seen for value in batch][:8]
    assert sorted(first_epoch) == list(range(8))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 4, 6])
def test_interrupted_and_resumed_is_uninterrupted(whole, tmp_path, at, number):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(make_config(), tmp_path, at, lambda: interrupt(number))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert rows(tmp_path)[-1]["step"] == at  # the step was finished and reported
    state, advance = train(make_config(), tmp_path)
    expected, uninterrupted, written = whole
    same(state, expected)
    assert rows(tmp_path) == written
    assert advance.seen == uninterrupted.seen[at:]


def test_a_crash_goes_back_to_the_last_checkpoint(whole, tmp_path):
    with pytest.raises(RuntimeError, match="a bug"):
        train(make_config(), tmp_path, 7, crash)
    assert rows(tmp_path)[-1]["step"] > 4
    state, advance = train(make_config(), tmp_path)
    expected, uninterrupted, written = whole
    same(state, expected)
    assert rows(tmp_path) == written  # the lines of steps 5 and 6 are there once
    assert noted(tmp_path) == uninterrupted.seen
    assert advance.seen == uninterrupted.seen[4:]


@pytest.mark.parametrize("checkpoint_every", [4, 100])
def test_sparse_logs_do_not_tell_an_interruption(tmp_path, checkpoint_every):
    config = make_config(log_every=5, checkpoint_every=checkpoint_every, evaluate_every=100)
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", 7, interrupt)
    train(config, tmp_path / "cut")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_a_finished_run_is_left_alone(tmp_path):
    state, _ = train(make_config(), tmp_path)
    written = (tmp_path / "metrics.jsonl").read_text()
    again, advance = train(make_config(), tmp_path)
    assert not advance.seen
    same(again, state)
    assert (tmp_path / "metrics.jsonl").read_text() == written


def test_a_signal_in_the_last_step_is_no_interruption(whole, tmp_path):
    state, _ = train(make_config(), tmp_path, STEPS, interrupt)
    same(state, whole[0])


def test_a_second_signal_interrupts_at_once(tmp_path):
    def twice():
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        train(make_config(), tmp_path, 2, twice)
    assert [row["step"] for row in rows(tmp_path)] == [0]  # step 1 was not yet read, step 2 not done
