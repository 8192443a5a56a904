"""Times the phases of a step, and traces some steps with the profiler."""

import contextlib
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from absl import logging

from r2rec_jax.runtime.errors import UserError

SIGNALLED = 5  # number of steps traced after SIGUSR1


class Phases:
    """Accumulates host seconds by phase between calls of `drain`.

        with phases("rollout"):
            ...
        writer.write(step, phases.drain())  # {"time/rollout_s": 0.8}

    A phase that only dispatches work measures the dispatch; block on the result inside the phase to time the
    work. Phase names also appear in profiler traces.
    """

    def __init__(self):
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            with jax.profiler.TraceAnnotation(name):
                yield
        finally:
            elapsed = time.perf_counter() - start
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed

    def rate(self, name: str, amount: float) -> float:
        """`amount` per second of phase `name` since the last drain."""
        return amount / max(self._seconds[name], 1e-9)

    def drain(self) -> dict[str, float]:
        """{"time/NAME_s": seconds} since the last drain; empties the counters."""
        drained = {f"time/{name}_s": seconds for name, seconds in self._seconds.items()}
        self._seconds = {}
        return drained


def start_trace(folder: str | Path) -> None:
    """Starts the profiler without tracing Python calls, which would fill the trace and slow the host."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    jax.profiler.start_trace(folder, profiler_options=options)


def peak_memory() -> dict[str, float]:
    """Peak memory since process start, in GB.

    "memory/host_peak_gb" is for this process. "memory/device_peak_gb" is for its first device, on backends
    that report it, such as GPUs.
    """
    peaks = {"memory/host_peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peaks["memory/device_peak_gb"] = stats["peak_bytes_in_use"] / 1e9
    return peaks


@contextlib.contextmanager
def trace_window(steps: str, folder: str | Path) -> Iterator[Callable[[int, object], None]]:
    """Traces the steps of a half-open window "100:105" into `folder`; "" traces none.

        with trace_window(config.trace_steps, workdir / "trace") as tracing:
            for step in ...:
                tracing(step, state)  # before the step's work

    A trace starts and ends when `state` is ready, so it contains complete steps. A run resumed inside the
    window traces the rest of it. SIGUSR1 traces the next `SIGNALLED` steps into `folder`-STEP; during a trace
    it takes effect after the end of that trace. Raises UserError for a malformed window.
    """
    first, last = _window(steps)
    requested, end = False, None  # end: step before which the current trace stops

    def request(*_) -> None:
        nonlocal requested
        requested = True

    def tracing(step: int, state: object) -> None:
        nonlocal requested, end
        if end is not None and step >= end:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            end = None
        if end is not None or not (requested or first <= step < last):
            return
        if first <= step < last:
            into, end = folder, last
        else:
            into, end, requested = f"{folder}-{step}", step + SIGNALLED, False
        jax.block_until_ready(state)
        logging.info("tracing steps %d to %d into %s", step, end - 1, into)
        start_trace(into)

    before = signal.signal(signal.SIGUSR1, request)
    try:
        yield tracing
    finally:
        signal.signal(signal.SIGUSR1, before)
        if end is not None:
            jax.profiler.stop_trace()


def _window(steps: str) -> tuple[int, int]:
    if not steps:
        return 0, 0
    try:
        first, last = (int(part) for part in steps.split(":"))
    except ValueError:
        raise UserError(f"trace steps {steps!r}: write FIRST:LAST, e.g. 100:105") from None
    if not 0 <= first < last:
        raise UserError(f"trace steps {steps!r}: FIRST must be below LAST")
    return first, last
