"""The loop that drives any stage: batches in, steps out, metrics one step late, resumable anywhere."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grain
import jax
from absl import logging
from ml_collections import ConfigDict
from tqdm import tqdm

from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.metrics import MetricWriter, StepLog
from r2rec_jax.runtime.profiler import Phases, trace_window
from r2rec_jax.train.state import CHECKPOINTS, TrainState

# (state, batch, step) -> (state, metrics): a jitted step, or a rollout and its update.
Advance = Callable[[TrainState, object, int], tuple[TrainState, dict]]


def run(
    config: ConfigDict,
    workdir: Path,
    state: TrainState,
    batches: grain.DatasetIterator,
    advance: Advance,
    phases: Phases,
    evaluate: Callable[[TrainState], dict] | None = None,
    logs: Sequence[StepLog] = (),
) -> TrainState:
    """Trains for `config.train.steps` steps in all, going on from the newest checkpoint in `workdir`.

    Metrics are read one step late, so that the device is never waited for. SIGINT and SIGTERM finish
    the step, write a checkpoint and leave; the same command goes on from there.

    Args:
      batches: closed at the end, however that comes.
      evaluate: called before the first step, every `config.train.evaluate_every` steps and at the end.
      logs: what `advance` writes besides; like the metrics they lose the steps that will be done again.
    """
    c = config.train
    writer = MetricWriter(workdir)
    with (
        Checkpointer(workdir / CHECKPOINTS) as checkpoints,
        contextlib.closing(batches),
        trace_window(config.profile.steps, workdir / "trace") as tracing,
        _stop_signal() as stopped,
    ):
        done = checkpoints.latest_step() or 0
        if done:
            state, data = checkpoints.restore(done, state)
            batches.set_state(data["batches"])
            logging.info("resuming %s at step %d", workdir, done)
        if done < c.steps:
            batches.start_prefetch()
        for log in (writer, *logs):
            log.truncate_after(done)

        def save(step: int):
            checkpoints.save(step, state, {"batches": batches.get_state(), "config": config.to_dict()})

        if evaluate and not done:
            writer.write(0, evaluate(state))
        late = None
        with tqdm(total=c.steps, initial=done, desc=config.stage, unit="step", mininterval=1.0) as progress:
            for step in range(done + 1, c.steps + 1):
                tracing(step)
                with phases("input"):
                    batch = next(batches)
                state, metrics = advance(state, batch, step)
                if late and late[0] % c.log_every == 0:
                    _report(writer, progress, *late)
                late = (step, metrics | phases.drain())
                progress.update()
                if evaluate and (step % c.evaluate_every == 0 or step == c.steps):
                    _report(writer, progress, *late)
                    late = None
                    writer.write(step, evaluate(state))
                planned = step % c.checkpoint_every == 0 or step == c.steps
                if planned or stopped():
                    # An interruption adds no line that the uninterrupted run would not have.
                    if late and (planned or step % c.log_every == 0):
                        _report(writer, progress, *late)
                    late = None
                    save(step)
                if stopped() and step < c.steps:
                    checkpoints.wait()
                    logging.warning("stopped after step %d; the same command goes on from there", step)
                    raise KeyboardInterrupt
    return state


def _report(writer: MetricWriter, progress: tqdm, step: int, metrics: dict) -> None:
    metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
    writer.write(step, metrics)
    shown = {
        name.removeprefix("train/"): metrics[name]
        for name in ("train/loss", "train/reward")
        if name in metrics
    }
    progress.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)


@contextlib.contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGINT or SIGTERM has come; a second one interrupts at once."""
    came = False

    def note(*_):
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
