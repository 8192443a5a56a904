"""The training loop: interrupted and resumed it is the loop that was never interrupted."""

import json
import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from r2rec_jax.pipeline.batches import batches
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metric_writer import StepLog, read
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train import loop
from r2rec_jax.train.state import CHECKPOINTS, TrainState, restore_trainable

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
    finite = jnp.isfinite(loss)
    return state.apply_gradients(grads, OPTIMIZER, finite), {
        "train/loss": loss,
        "train/skipped_count": 1.0 - finite,
    }


class Advance:
    """A step that notes what it was given, and does `trouble` before it returns from `at`.

    The batches of the steps `bad` hold a nan.
    """

    def __init__(self, phases, notes, at=None, trouble=None, bad=()):
        self.phases, self.notes, self.at, self.trouble, self.seen = phases, notes, at, trouble, []
        self.bad = bad

    def __call__(self, state, batch, step):
        self.seen.append((step, batch.tolist()))
        self.notes.append(step, {"batch": batch.tolist()})
        if step in self.bad:
            batch = np.array([*batch[:-1], np.nan], np.float32)
        with self.phases("update"):
            state, metrics = update(state, batch)
        if step == self.at:
            self.trouble()
        return state, metrics, {"values": batch}


def make_config(log_every=1, checkpoint_every=4, evaluate_every=3, **changes) -> ConfigDict:
    train = {
        "steps": STEPS,
        "log_every": log_every,
        "checkpoint_every": checkpoint_every,
        "evaluate_every": evaluate_every,
        "best_metric": "",
        "patience": 0,
        "stop_after_skipped": 0,
        **changes,
    }
    return ConfigDict({"stage": "test", "train": train, "profile": {"steps": ""}})


def train(config, workdir, at=None, trouble=None, bad=(), quality=None, logs=()):
    """One run of the command: everything made anew. Returns (state, advance).

    `quality` of a step is what an evaluation after it finds.
    """
    phases = Phases()
    notes = StepLog(workdir / "notes.jsonl")
    advance = Advance(phases, notes, at, trouble, bad)
    examples = batches(Source(), batch_size=3, seed=1, shuffle=True, to_batch=np.stack)
    state = TrainState.create({"w": jnp.zeros(2)}, OPTIMIZER)

    def evaluate(state):
        found = {"validation/w": state.trainable["w"].sum()}
        return found | ({"validation/quality": quality(int(state.step))} if quality else {})

    state = loop.run(
        config.train,
        workdir,
        state,
        examples,
        advance,
        phases,
        evaluate,
        logs=(notes, *logs),
        stage=config.stage,
        record=config.to_dict(),
        trace=config.profile.steps,
    )
    return state, advance


def rows(workdir) -> list[dict]:
    measured = ("time/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(measured)} for row in read(workdir)]


def noted(workdir) -> list[tuple]:
    lines = [json.loads(line) for line in (workdir / "notes.jsonl").read_text().splitlines()]
    return [(line["step"], line["batch"]) for line in lines]


def same(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)


def crash():
    raise RuntimeError("a bug")


class Interrupting:
    """A log in whose truncation a signal comes, before the first step."""

    def truncate_after(self, step):
        del step
        interrupt()


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


def test_a_signal_in_the_last_step_stops_what_would_come_next(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(make_config(), tmp_path, STEPS, interrupt)
    assert rows(tmp_path) == whole[2]
    state, advance = train(make_config(), tmp_path)
    same(state, whole[0])
    assert not advance.seen


def test_a_signal_in_a_finished_run_is_not_lost(tmp_path):
    train(make_config(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(make_config(), tmp_path, logs=[Interrupting()])


def test_a_signal_that_is_passed_on_twice_is_one(whole, tmp_path):
    def twice():
        interrupt(signal.SIGTERM)
        interrupt(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(make_config(), tmp_path, 2, twice)
    assert rows(tmp_path)[-1]["step"] == 2
    same(train(make_config(), tmp_path)[0], whole[0])


# A checkpoint that is damaged.


def test_a_damaged_checkpoint_is_one_less(whole, tmp_path):
    with pytest.raises(RuntimeError):
        train(make_config(), tmp_path, 10, crash)
    (largest,) = sorted(
        (path for path in (tmp_path / CHECKPOINTS / "8" / "state").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )[-1:]
    largest.write_bytes(largest.read_bytes()[:-40])
    state, advance = train(make_config(), tmp_path)
    expected, uninterrupted, written = whole
    same(state, expected)
    assert advance.seen == uninterrupted.seen[4:]
    assert rows(tmp_path) == written and noted(tmp_path) == uninterrupted.seen
    names = sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir())
    assert names == ["11", "8", "damaged-8"]


# Updates that are not finite.


def last_line(workdir, config, **how) -> str:
    with pytest.raises(UserError) as caught:
        train(config, workdir, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_row_of_skipped_updates_stops_and_leaves_the_batch(tmp_path, log_every):
    config = make_config(log_every=log_every, evaluate_every=100, stop_after_skipped=3)
    # Two bad ones and a good one are no row of three.
    said = last_line(tmp_path, config, bad={2, 3, 6, 7, 8, 9, 10, 11})
    path = tmp_path / "skipped-8.npz"
    assert f"3 updates in a row were not finite, the last at step 8; its batch is in {path}" in said
    assert "last good checkpoint is of step 4" in said
    with np.load(path, allow_pickle=False) as saved:
        batch = {name: saved[name] for name in saved}
    assert list(batch) == ["values"]
    state = TrainState.create({"w": jnp.zeros(2)}, OPTIMIZER)
    after, metrics = update(state, batch["values"])  # it does it again
    assert metrics["train/skipped_count"] == 1 and np.isnan(metrics["train/loss"])
    same(after, state)
    assert [path.name for path in tmp_path.glob("*.npz")] == [path.name]


def test_without_a_checkpoint_the_line_says_so(tmp_path):
    said = last_line(tmp_path, make_config(stop_after_skipped=1), bad={1})
    assert "there is no checkpoint yet" in said and (tmp_path / "skipped-1.npz").exists()


def test_skipped_updates_may_be_endless(tmp_path):
    state, _ = train(make_config(), tmp_path, bad=set(range(3, 100)))
    assert int(state.step) == 2
    assert sum(row.get("train/skipped_count", 0) for row in rows(tmp_path)) == STEPS - 2


def test_an_interruption_does_not_start_the_count_anew(tmp_path):
    config = make_config(stop_after_skipped=4)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, 7, interrupt, bad=set(range(5, 100)))
    assert "the last at step 8" in last_line(tmp_path, config, bad=set(range(5, 100)))


# The best evaluation.

RISE_AND_FALL = {0: 1.0, 3: 3.0, 6: float("nan"), 9: 3.0, STEPS: 2.0}.__getitem__


def checkpoints_of(workdir) -> list[int]:
    return sorted(int(path.name) for path in (workdir / CHECKPOINTS).iterdir())


def best_of(workdir):
    like = {"w": jnp.zeros(2)}
    return restore_trainable(workdir, like, OPTIMIZER, "best")["w"]


def test_the_best_checkpoint_is_kept(whole, tmp_path):
    config = make_config(best_metric="validation/quality", checkpoint_every=2)
    train(config, tmp_path, quality=RISE_AND_FALL)
    assert checkpoints_of(tmp_path) == [3, 10, STEPS]
    expected = next(row["validation/w"] for row in whole[2] if row["step"] == 3 and "validation/w" in row)
    assert best_of(tmp_path).sum() == pytest.approx(expected)
    latest = restore_trainable(tmp_path, {"w": jnp.zeros(2)}, OPTIMIZER)
    same(latest, whole[0].trainable)


def test_the_best_may_be_the_start(tmp_path):
    train(make_config(best_metric="validation/quality"), tmp_path, quality=lambda step: -step)
    assert checkpoints_of(tmp_path) == [0, 8, STEPS]
    assert not best_of(tmp_path).any()


def test_without_a_metric_the_best_is_the_latest(tmp_path):
    state, _ = train(make_config(), tmp_path)
    same(best_of(tmp_path), state.trainable["w"])


@pytest.mark.parametrize("at", [1, 2, 3, 5, 9])
def test_best_and_patience_survive_an_interruption(tmp_path, at):
    config = make_config(best_metric="validation/quality", patience=2, checkpoint_every=100)
    state, _ = train(config, tmp_path / "whole", quality=RISE_AND_FALL)
    assert rows(tmp_path / "whole")[-1]["step"] == 9  # 6 and 9 were no better than 3
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", at, interrupt, quality=RISE_AND_FALL)
    again, _ = train(config, tmp_path / "cut", quality=RISE_AND_FALL)
    same(again, state)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    same(best_of(tmp_path / "cut"), best_of(tmp_path / "whole"))


@pytest.mark.parametrize("at", [2, 5, 8])
def test_best_and_patience_survive_a_crash(tmp_path, at):
    config = make_config(best_metric="validation/quality", patience=2)
    train(config, tmp_path / "whole", quality=RISE_AND_FALL)
    with pytest.raises(RuntimeError):
        train(config, tmp_path / "cut", at, crash, quality=RISE_AND_FALL)
    train(config, tmp_path / "cut", quality=RISE_AND_FALL)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert checkpoints_of(tmp_path / "cut") == checkpoints_of(tmp_path / "whole")


def test_a_run_that_gave_up_is_finished(tmp_path):
    config = make_config(best_metric="validation/quality", patience=2)
    train(config, tmp_path, quality=RISE_AND_FALL)
    written = (tmp_path / "metrics.jsonl").read_text()
    _, advance = train(config, tmp_path, quality=RISE_AND_FALL)
    assert not advance.seen and (tmp_path / "metrics.jsonl").read_text() == written


def test_settings_that_cannot_be_meant(tmp_path):
    assert "train.best_metric" in last_line(tmp_path / "a", make_config(patience=1))
    said = last_line(tmp_path / "b", make_config(best_metric="validation/reward"))
    assert "'validation/reward'" in said and "validation/w" in said


def test_a_run_killed_in_its_first_evaluations_reports_them_once(tmp_path):
    with pytest.raises(RuntimeError):
        train(make_config(), tmp_path, 1, crash)
    train(make_config(), tmp_path)
    assert [row["step"] for row in rows(tmp_path) if "validation/w" in row] == [0, 3, 6, 9, STEPS]


def test_a_steps_seconds_are_its_own(tmp_path, monkeypatch):
    """Of steps that are waited for, as GRPO's are: evaluated after, saved after, or followed by another."""

    class Slow(Advance):
        def __call__(self, state, batch, step):
            time.sleep(0.1)
            got = super().__call__(state, batch, step)
            return jax.block_until_ready(got)

    monkeypatch.setitem(globals(), "Advance", Slow)
    train(make_config(), tmp_path / "warm-up")
    train(make_config(), tmp_path / "run")
    seconds = [row["time/step_s"] for row in read(tmp_path / "run") if "time/step_s" in row]
    assert len(seconds) == STEPS and min(seconds) >= 0.1 and np.median(seconds) < 0.19


def test_what_a_killed_run_left_of_an_old_checkpoint_is_deleted_though_all_steps_are_done(tmp_path):
    train(make_config(), tmp_path)
    before = sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir())
    (tmp_path / CHECKPOINTS / "1" / "state").mkdir(parents=True)
    train(make_config(), tmp_path)
    assert sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir()) == before
