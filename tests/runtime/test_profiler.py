import os
import signal
from pathlib import Path

import jax.numpy as jnp
import numpy as np
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


def recorded(monkeypatch, steps, visited, signals=(), waited=None):
    """The profiler's folders and stops while a loop visits some steps; SIGUSR1 comes during `signals`. What
    was waited for is added to `waited`."""
    calls, waited = [], [] if waited is None else waited
    monkeypatch.setattr(profiler, "start_trace", lambda folder: calls.append(folder))
    monkeypatch.setattr(profiler.jax.profiler, "stop_trace", lambda: calls.append("stop"))
    monkeypatch.setattr(profiler.jax, "block_until_ready", waited.append)
    with profiler.trace_window(steps, "trace") as tracing:
        for step in visited:
            tracing(step, f"state before {step}")
            calls.append(step)
            if step in signals:
                os.kill(os.getpid(), signal.SIGUSR1)
    return calls


def test_the_window_is_half_open(monkeypatch):
    assert recorded(monkeypatch, "2:4", range(6)) == [0, 1, "trace", 2, 3, "stop", 4, 5]


def test_a_run_resumed_within_or_ended_within_or_past_the_window(monkeypatch):
    assert recorded(monkeypatch, "2:4", [3, 4]) == ["trace", 3, "stop", 4]
    assert recorded(monkeypatch, "2:9", [2, 3]) == ["trace", 2, 3, "stop"]
    assert recorded(monkeypatch, "2:4", [7]) == [7]
    assert recorded(monkeypatch, "", [0, 1]) == [0, 1]


def test_a_signal_traces_the_next_five_steps(monkeypatch):
    expected = [0, 1, 2, "trace-3", 3, 4, 5, 6, 7, "stop", 8, 9]
    assert recorded(monkeypatch, "", range(10), signals=[2]) == expected
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_signal_during_a_trace_waits_for_its_end(monkeypatch):
    expected = [0, "trace", 1, 2, "stop", "trace-3", 3, 4, "stop"]
    assert recorded(monkeypatch, "1:3", range(5), signals=[1]) == expected


def test_a_trace_holds_whole_steps(monkeypatch):
    waited = []
    recorded(monkeypatch, "2:4", range(6), waited=waited)
    assert waited == ["state before 2", "state before 4"]


def test_peaks_of_memory(monkeypatch):
    peaks = profiler.peak_memory()
    held = np.ones(50_000_000 // 8)  # 50 MB, at rest by the time of the second look
    more = profiler.peak_memory()
    assert more["memory/host_peak_gb"] >= peaks["memory/host_peak_gb"] > 0.05
    status = Path("/proc/self/status").read_text()
    kib = int(status.split("VmHWM:")[1].split()[0])
    assert more["memory/host_peak_gb"] == pytest.approx(kib * 1024 / 1e9, rel=0.05)
    assert "memory/device_peak_gb" not in peaks  # a CPU keeps no count
    del held

    class GPU:
        def memory_stats(self):
            return {"peak_bytes_in_use": 3_000_000_000}

    monkeypatch.setattr(profiler.jax, "local_devices", lambda: [GPU()])
    assert profiler.peak_memory()["memory/device_peak_gb"] == 3.0


@pytest.mark.parametrize("steps", ["5", "a:b", "5:5", "-1:3", "1:2:3"])
def test_a_malformed_window(steps):
    with pytest.raises(UserError, match="trace steps"), profiler.trace_window(steps, "trace"):
        pass


def test_a_real_trace_holds_the_phases(tmp_path):
    phases = profiler.Phases()
    with profiler.trace_window("0:1", tmp_path) as tracing:
        tracing(0, ())
        with phases("a_phase_of_this_test"):
            jnp.ones(3).sum().block_until_ready()
    (trace,) = tmp_path.glob("**/*.xplane.pb")
    assert b"a_phase_of_this_test" in trace.read_bytes()
