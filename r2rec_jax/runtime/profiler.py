"""Where the time of a step goes: seconds by phase, and traces of a few steps."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from r2rec_jax.runtime.errors import UserError


class Phases:
    """Host seconds by phase, accumulated between two `drain`s.

        with phases("rollout"):
            ...
        writer.write(step, phases.drain())  # {"time/rollout_s": 0.8}

    A phase that only dispatches measures dispatching: block on its result inside to time the work.
    The name shows in profiler traces too.
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
        """`amount` a second of what phase `name` has taken since the last drain."""
        return amount / max(self._seconds[name], 1e-9)

    def drain(self) -> dict[str, float]:
        """{"time/NAME_s": seconds} since the last drain; empties the counters."""
        drained = {f"time/{name}_s": seconds for name, seconds in self._seconds.items()}
        self._seconds = {}
        return drained


@contextlib.contextmanager
def trace_window(steps: str, folder: str | Path) -> Iterator[Callable[[int], None]]:
    """Traces the steps of a half-open window "100:105" into `folder`; "" traces nothing.

        with trace_window(config.trace_steps, workdir / "trace") as tracing:
            for step in ...:
                tracing(step)  # before the step's work

    A run resumed inside the window traces the rest of it. Raises UserError for a malformed window.
    """
    first, last = _window(steps)
    running = False

    def tracing(step: int) -> None:
        nonlocal running
        if not running and first <= step < last:
            jax.profiler.start_trace(folder)
            running = True
        elif running and step >= last:
            jax.profiler.stop_trace()
            running = False

    try:
        yield tracing
    finally:
        if running:
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
