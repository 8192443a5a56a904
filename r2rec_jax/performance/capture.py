"""Runs a stage's own steps under the profiler, in the place of its training loop."""

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

FEWEST, MOST = 2, 20  # steps of warm-up: until one has compiled nothing
WINDOW = "profiled"  # the host's annotation of all traced steps
_COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step: seconds from the end of the one before, those of each phase, its shapes, the share of them
    that is padding, and metrics."""

    seconds: float
    phases: dict[str, float]
    shapes: Shapes
    padding: float
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Program:
    """An executable that ran: its optimised HLO, the operations in it, and its bytes on one device, all its
    arguments and results among them."""

    name: str
    text: str
    operations: dict[str, Operation]
    bytes: int


@contextlib.contextmanager
def compilations() -> Iterator[list[tuple[str, float]]]:
    """A list that grows by (function, seconds) whenever XLA compiles, or loads what it compiled before."""
    found: list[tuple[str, float]] = []

    def note(event: str, seconds: float, **about) -> None:
        if event == _COMPILED:
            found.append((str(about.get("fun_name", "")), seconds))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


class Capture:
    """Steps timed without the profiler, then as many with it.

    `drive` takes the place of `train.loop.run`: it has its arguments and calls the same `advance`, but
    neither evaluates nor writes checkpoints. What it found is in the attributes then.

    Attributes:
      warmup: seconds of each step before those that count. timed, traced: the steps.
      compiled: how many programs were compiled before the timed steps, and from then on.
      trace: of the traced ones. programs: those that ran in it, by (module name, number).
      memory: what the first device says of its memory, None where it says nothing.
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
        """As the training loop takes them, each waited for when the next one is under way; the device is idle
        before and after."""
        jax.block_until_ready(state)
        phases.drain()
        handed, ends = [], [time.perf_counter()]  # an end is None until it is known

        def settle() -> None:
            if ends[-1] is None:
                jax.block_until_ready(handed[-1][1])
                ends[-1] = time.perf_counter()

        for _ in range(count):
            self._number += 1
            with jax.profiler.StepTraceAnnotation("step", step_num=self._number):
                with phases("input"):
                    batch = next(batches)
                state, metrics, batch = advance(state, batch, self._number)
            settle()
            ends.append(time.perf_counter() if ready(metrics) else None)
            handed.append((batch, metrics, phases.drain()))
        settle()
        jax.block_until_ready(state)
        # Only now, when nothing is measured any more, are numbers fetched from the device.
        seconds = np.diff(ends).tolist()
        return state, [_step(*each, taken) for each, taken in zip(handed, seconds, strict=True)]


def _step(batch, metrics: dict, phases: dict[str, float], seconds: float) -> Step:
    completions = jax.device_get(batch.completions if isinstance(batch, GRPOBatch) else batch)
    (B, P), (N, R) = completions.prompt.shape, completions.response.shape
    prompted = P > 1  # pretraining's prompt of one token is its row's first input
    used = completions.response_mask.sum() + prompted * completions.prompt_length.sum()
    names = {name.removeprefix("time/").removesuffix("_s"): value for name, value in phases.items()}
    padding = 1 - float(used) / (N * R + prompted * B * P)
    numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
    return Step(seconds, names, Shapes(B, N // B, P, R), padding, numbers)


def _programs(found: trace.Trace) -> dict[tuple[str, str], Program]:
    """Those that ran, matched by module name and by the operations that were seen."""
    seen = defaultdict(set)
    for event in found.events:
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
        # Shapes of one function share a name: the right one has all operations that ran.
        best = None
        for executable, text in candidates[program[0]]:
            known = operations(text)
            matching = len(ops & known.keys())
            if best is None or matching > best[0]:
                best = matching, executable, text, known
        if best is not None:
            _, executable, text, known = best
            m = executable.get_compiled_memory_stats()
            size = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes
            programs[program] = Program(program[0], text, known, size - m.alias_size_in_bytes)
    return programs
