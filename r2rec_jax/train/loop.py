"""The training loop of every stage: resumable at any step, metrics read one step late."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import grain
import jax
from absl import logging
from tqdm import tqdm

from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.distributed import Vote, is_first
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metric_writer import MetricWriter, StepLog
from r2rec_jax.runtime.profiler import Phases, peak_memory, trace_window
from r2rec_jax.train.config import TrainConfig
from r2rec_jax.train.early_stopping import EarlyStopping, save_batch
from r2rec_jax.train.state import CHECKPOINTS, TrainState

# (state, batch, step) -> (state, metrics, what the update was given): a step, or a rollout and its update.
Step = Callable[[TrainState, object, int], tuple[TrainState, dict, object]]
Drive = Callable[..., TrainState]  # `run`, or what takes its place with the same arguments


def run(
    c: TrainConfig,
    workdir: Path,
    state: TrainState,
    batches: grain.DatasetIterator,
    advance: Step,
    phases: Phases,
    evaluate: Callable[[TrainState], dict] | None = None,
    logs: Sequence[StepLog] = (),
    *,
    stage: str,
    record: dict,
    trace: str = "",
) -> TrainState:
    """Trains for `c.steps` steps in all, resuming from the newest checkpoint in `workdir`.

    Metrics are read one step late, so that the host does not wait for the device. On SIGINT and SIGTERM the
    loop finishes the step, writes a checkpoint and raises KeyboardInterrupt; the same command resumes there,
    or at the checkpoint before if that one is damaged. In a distributed run a signal to one process stops
    all, a step later. SIGUSR1 traces the next steps into `workdir`/trace-STEP. The checkpoint of the best
    evaluation (`c.best_metric`) is kept, and `c.patience` evaluations without a better one end the run.

    Args:
      c: the `train` section. stage: its name in the progress bar. record: the whole config, kept in every
        checkpoint. trace: the steps to trace, see `trace_window`.
      batches: closed when the loop ends or raises.
      evaluate: called before the first step, every `c.evaluate_every` steps and at the end.
      logs: further files that `advance` writes; on resuming they lose the lines of steps that run again.

    Raises:
      UserError: `c.stop_after_skipped` updates in a row were not finite, or a checkpoint cannot be
        read or written.
      KeyboardInterrupt: after SIGINT or SIGTERM, with everything saved.
    """
    writer, stopping = MetricWriter(workdir), EarlyStopping(c)
    with (
        Checkpointer(workdir / CHECKPOINTS) as checkpoints,
        contextlib.closing(batches),
        trace_window(trace, workdir / "trace") as tracing,
        _stop_signal() as stopped,
    ):
        done = None
        if found := checkpoints.resume(state):
            done, state, data = found
            batches.set_state(data["batches"])
            stopping.resume(data["watch"])
            checkpoints.clear_old(stopping.best_step)
            logging.info("resuming %s at step %d", workdir, done)
        if (done or 0) < c.steps and not stopping.gave_up:
            batches.start_prefetch()
        for log in (writer, *logs):
            log.truncate_after(-1 if done is None else done)

        def evaluate_and_write(step: int) -> bool:
            """Evaluates and writes the metrics; returns True when they are the best so far."""
            values = evaluate(state)
            writer.write(step, values)
            return stopping.evaluation(step, values)

        def save(step: int) -> None:
            data = {"batches": batches.get_state(), "config": record, "watch": stopping.state()}
            checkpoints.save(step, state, data, best=stopping.best_step)

        if evaluate and done is None and evaluate_and_write(0):
            save(0)
        first, last, stop = (done or 0) + 1, c.steps, False
        if stopping.gave_up:
            last = done
        with tqdm(
            total=c.steps,
            initial=first - 1,
            desc=stage,
            unit="step",
            mininterval=1.0,
            disable=not is_first(),
        ) as progress:
            late = _LateMetrics(c, writer, stopping, progress)

            def read(every: bool = False) -> None:
                late.read(every)
                if stopping.broken:
                    _give_up(workdir, checkpoints, late, c.stop_after_skipped)

            for step in range(first, last + 1):
                tracing(step, state)
                began = time.perf_counter()
                with jax.profiler.StepTraceAnnotation("step", step_num=step):
                    with phases("input"):
                        batch = next(batches)
                    state, metrics, batch = advance(state, batch, step)
                end = time.perf_counter() if ready(metrics) else None
                read()
                late.put(step, metrics | phases.drain(), batch, began, end)
                progress.update()
                planned = step % c.checkpoint_every == 0 or step == c.steps
                if evaluate and (step % c.evaluate_every == 0 or step == c.steps):
                    read(every=True)
                    planned |= evaluate_and_write(step) or stopping.gave_up
                stop = stopped()
                if planned or stop:
                    # An interruption adds no line that the uninterrupted run would not have.
                    read(every=planned)
                    save(step)
                if stopping.gave_up:
                    logging.info(
                        "no better %s since step %d: stopped after step %d",
                        c.best_metric,
                        stopping.best_step,
                        step,
                    )
                if stopping.gave_up or stop:
                    break
        if stop or stopped():  # also in a finished run: the next stage must not begin
            checkpoints.wait()
            logging.warning("stopped after step %d", checkpoints.latest_step() or 0)
            raise KeyboardInterrupt
    return state


class _LateMetrics:
    """The metrics of the newest step, which are read and written when the next step has been dispatched.

    Attributes: `step` and its `batch`, the last that `read` has read.
    """

    def __init__(self, c: TrainConfig, writer: MetricWriter, stopping: EarlyStopping, progress: tqdm):
        self._c, self._writer, self._stopping, self._progress = c, writer, stopping, progress
        self._waiting: tuple | None = None
        self._ended = 0.0
        self.step, self.batch = 0, None

    def put(self, step: int, metrics: dict, batch, began: float, end: float | None) -> None:
        """`began`: when the host began the step. `end`: when the device ended it, None if it has not."""
        self._waiting = step, metrics, batch, began, end

    def read(self, every: bool = False) -> None:
        """Waits for the metrics; writes them if `every` or at multiples of `log_every`."""
        if self._waiting is None:
            return
        (self.step, metrics, self.batch, began, end), self._waiting = self._waiting, None
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        # On the device a step begins when the one before has ended.
        began, self._ended = max(began, self._ended), end or time.perf_counter()
        metrics["time/step_s"] = self._ended - began
        if "train/token_count" in metrics:
            metrics["train/tokens_per_s"] = metrics["train/token_count"] / metrics["time/step_s"]
        if "train/seconds_at_peak" in metrics:
            metrics["train/mfu"] = metrics.pop("train/seconds_at_peak") / metrics["time/step_s"]
        metrics |= peak_memory()
        if every or self.step % self._c.log_every == 0:
            self._writer.write(self.step, metrics)
            _show(self._progress, metrics)
        self._stopping.update(metrics)


def ready(metrics: dict) -> bool:
    """Whether the device has computed them all."""
    return all(value.is_ready() for value in metrics.values() if isinstance(value, jax.Array))


def _give_up(workdir: Path, checkpoints: Checkpointer, late: _LateMetrics, skipped: int) -> NoReturn:
    """Saves the batch of the last update that was not finite, and raises UserError."""
    step, batch = late.step, late.batch
    share = f"-{jax.process_index()}" if jax.process_count() > 1 else ""
    path = workdir / f"skipped-{step}{share}.npz"
    save_batch(path, batch)
    checkpoints.wait()
    newest = checkpoints.latest_step()
    good = "there is no checkpoint yet" if newest is None else f"the last good checkpoint is of step {newest}"
    raise UserError(
        f"{skipped} updates in a row were not finite, the last at step {step}; its batch is in {path}, "
        f"{good}: look at what the batch holds, or lower optimizer.learning_rate in another --workdir"
    )


def _show(progress: tqdm, metrics: dict[str, float]) -> None:
    shown = {
        name.removeprefix("train/"): metrics[name]
        for name in ("train/loss", "train/reward")
        if name in metrics
    }
    progress.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)


@contextlib.contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells, once a step, whether SIGINT or SIGTERM has come to any process."""
    came, vote = False, Vote()

    def note(*_):
        nonlocal came
        came = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: vote(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
