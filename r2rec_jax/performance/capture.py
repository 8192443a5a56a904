"""Runs a few steps of a training stage under the profiler, in place of the training loop."""

import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax.extend import backend
from ml_collections import ConfigDict

from r2rec_jax.model.flops import Shapes
from r2rec_jax.performance import trace
from r2rec_jax.performance.hlo_operations import Operation, operations
from r2rec_jax.runtime.profiler import Phases, start_trace
from r2rec_jax.train.grpo import GRPOBatch
from r2rec_jax.train.loop import Step as TrainingStep
from r2rec_jax.train.loop import ready
from r2rec_jax.train.state import TrainState

FEWEST, MOST = 2, 20  # warm-up steps: warm-up ends after the first step that compiles nothing
WINDOW = "profiled"  # name of the host annotation around all traced steps
_COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Step:
    """One measured step.

    seconds: from the end of the previous step to the end of this one. phases: host seconds by phase. padding:
    fraction of the token positions that is padding.
    """

    seconds: float
    phases: dict[str, float]
    shapes: Shapes
    padding: float
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Program:
    """An executable that ran. text: its optimised HLO. operations: by name. bytes: memory on one device,
    including arguments and results."""

    name: str
    text: str
    operations: dict[str, Operation]
    bytes: int


@contextlib.contextmanager
def compilations() -> Iterator[list[tuple[str, float]]]:
    """Yields a list to which each compilation, or load from the cache, appends (function, seconds)."""
    compiled: list[tuple[str, float]] = []

    def note(event: str, seconds: float, **about) -> None:
        if event == _COMPILED:
            compiled.append((str(about.get("fun_name", "")), seconds))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


class Capture:
    """Times steps without the profiler, then runs as many under it.

    `drive` replaces `train.loop.run`: it takes the same arguments and calls the same `advance`, but neither
    evaluates nor writes checkpoints. It sets the attributes below.

    Attributes:
      warmup: seconds of each warm-up step. timed, traced: steps without and with the profiler.
      compiled: number of programs compiled before the timed steps, and during the measurement.
      trace: of the traced steps. programs: those that ran in it, by (module name, number).
      memory: memory statistics of the first device; None if the backend has none.
    """

    def __init__(self, steps: int, folder: Path, compiled: list[tuple[str, float]]):
        self._count, self._folder, self._compiled = steps, folder, compiled
        self._number = 0  # of the step
        self.warmup: list[float] = []
        self.timed: list[Step] = []
        self.traced: list[Step] = []
        self.compiled = (0, 0)
        self.trace = trace.Trace([], {})
        self.programs: dict[tuple[str, str], Program] = {}
        self.memory: dict[str, int] | None = None

    def drive(
        self,
        c: ConfigDict,
        workdir: Path,
        state: TrainState,
        batches,
        advance: TrainingStep,
        phases: Phases,
        *_,
        **__,
    ) -> TrainState:
        del c, workdir
        with contextlib.closing(batches):
            batches.start_prefetch()
            while len(self.warmup) < MOST:
                before = len(self._compiled)
                state, steps = self._steps(1, state, batches, advance, phases)
                self.warmup.append(steps[0].seconds)
                logging.info("warm-up %d: %.2f s", len(self.warmup), steps[0].seconds)
                if len(self._compiled) == before and len(self.warmup) >= FEWEST:
                    break
            before = len(self._compiled)
            state, self.timed = self._steps(self._count, state, batches, advance, phases)
            start_trace(self._folder)
            try:
                with jax.profiler.TraceAnnotation(WINDOW):
                    state, self.traced = self._steps(self._count, state, batches, advance, phases)
            finally:
                jax.profiler.stop_trace()
            self.compiled = before, len(self._compiled) - before
            self.memory = jax.local_devices()[0].memory_stats()
            names = {WINDOW, "step", *(name for step in self.traced for name in step.phases)}
            self.trace = trace.read(trace.find(self._folder), names)
            self.programs = _programs(self.trace)
        return state

    def _steps(self, count: int, state, batches, advance, phases):
        """Runs steps as the training loop does: it waits for a step after it has dispatched the next one.

        The device is idle before the first step and after the last.
        """
        jax.block_until_ready(state)
        phases.drain()
        dispatched, ends = [], [time.perf_counter()]  # an end is None until the step has finished

        def settle() -> None:
            if ends[-1] is None:
                jax.block_until_ready(dispatched[-1][1])
                ends[-1] = time.perf_counter()

        for _ in range(count):
            self._number += 1
            with jax.profiler.StepTraceAnnotation("step", step_num=self._number):
                with phases("input"):
                    batch = next(batches)
                state, metrics, batch = advance(state, batch, self._number)
            settle()
            ends.append(time.perf_counter() if ready(metrics) else None)
            dispatched.append((batch, metrics, phases.drain()))
        settle()
        jax.block_until_ready(state)
        # Fetching numbers from the device takes time, so it happens after the measurement.
        seconds = np.diff(ends).tolist()
        return state, [_step(*result, taken) for result, taken in zip(dispatched, seconds, strict=True)]


def _step(batch, metrics: dict, phases: dict[str, float], seconds: float) -> Step:
    completions = jax.device_get(batch.completions if isinstance(batch, GRPOBatch) else batch)
    (B, P), (N, R) = completions.prompt.shape, completions.response.shape
    prompted = P > 1  # in pretraining the prompt is one token, the first input of the row
    used = completions.response_mask.sum() + prompted * completions.prompt_length.sum()
    names = {name.removeprefix("time/").removesuffix("_s"): value for name, value in phases.items()}
    padding = 1 - float(used) / (N * R + prompted * B * P)
    numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
    return Step(seconds, names, Shapes(B, N // B, P, R), padding, numbers)


def _programs(recorded: trace.Trace) -> dict[tuple[str, str], Program]:
    """The executables that ran, matched to the trace by module name and by operation names."""
    seen = defaultdict(set)
    for event in recorded.events:
        if event.op:
            seen[event.program].add(event.op)
    candidates = defaultdict(list)
    names = {name for name, _ in seen}
    for executable in backend.get_backend().live_executables():
        module = executable.hlo_modules()[0]
        if module.name in names:
            candidates[module.name].append((executable, module.to_string()))
    programs = {}
    for program, ops in seen.items():
        # Compilations of one function for different shapes share a name. The right one has all the
        # operations.
        best = None
        for executable, text in candidates[program[0]]:
            by_name = operations(text)
            matching = len(ops & by_name.keys())
            if best is None or matching > best[0]:
                best = matching, executable, text, by_name
        if best is not None:
            _, executable, text, by_name = best
            m = executable.get_compiled_memory_stats()
            size = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes
            programs[program] = Program(program[0], text, by_name, size - m.alias_size_in_bytes)
    return programs
