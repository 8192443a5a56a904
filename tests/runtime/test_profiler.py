import jax.numpy as jnp
import pytest

from r2rec_jax.runtime import profiler
from r2rec_jax.runtime.errors import UserError


def test_phases_accumulate_until_drained(monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 12.0, 20.0, 24.0])
    monkeypatch.setattr(profiler.time, "perf_counter", lambda: next(clock))
    phases = profiler.Phases()
    for name in ("rollout", "rollout"):
        with phases(name):
            pass
    with pytest.raises(RuntimeError), phases("update"):
        raise RuntimeError
    assert phases.rate("rollout", 60) == 20.0
    assert phases.drain() == {"time/rollout_s": 3.0, "time/update_s": 4.0}
    assert phases.drain() == {}


def recorded(monkeypatch, steps, visited):
    """The calls to the profiler while a loop visits some steps."""
    calls = []
    monkeypatch.setattr(profiler.jax.profiler, "start_trace", lambda _: calls.append("start"))
    monkeypatch.setattr(profiler.jax.profiler, "stop_trace", lambda: calls.append("stop"))
    with profiler.trace_window(steps, "trace") as tracing:
        for step in visited:
            tracing(step)
            calls.append(step)
    return calls


def test_the_window_is_half_open(monkeypatch):
    assert recorded(monkeypatch, "2:4", range(6)) == [0, 1, "start", 2, 3, "stop", 4, 5]


def test_a_run_resumed_within_or_ended_within_or_past_the_window(monkeypatch):
    assert recorded(monkeypatch, "2:4", [3, 4]) == ["start", 3, "stop", 4]
    assert recorded(monkeypatch, "2:9", [2, 3]) == ["start", 2, 3, "stop"]
    assert recorded(monkeypatch, "2:4", [7]) == [7]
    assert recorded(monkeypatch, "", [0, 1]) == [0, 1]


@pytest.mark.parametrize("steps", ["5", "a:b", "5:5", "-1:3", "1:2:3"])
def test_a_malformed_window(steps):
    with pytest.raises(UserError, match="trace steps"), profiler.trace_window(steps, "trace"):
        pass


def test_a_real_trace_holds_the_phases(tmp_path):
    phases = profiler.Phases()
    with profiler.trace_window("0:1", tmp_path) as tracing:
        tracing(0)
        with phases("a_phase_of_this_test"):
            jnp.ones(3).sum().block_until_ready()
    (trace,) = tmp_path.glob("**/*.xplane.pb")
    assert b"a_phase_of_this_test" in trace.read_bytes()
