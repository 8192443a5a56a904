"""Ceilings of a made-up device, by its own clock; whose peak an MFU is of."""

import time

import pytest

from r2rec_jax.model import flops
from r2rec_jax.runtime import measured_peaks


def test_rates_of_a_device_with_known_times(monkeypatch):
    """A product of side n takes n / 1000 s on a clock of our own: the side doubles to the first of 0.9 s."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def product(a, _):
        now[0] += a.shape[0] / 1000
        return a

    monkeypatch.setattr(measured_peaks.jax, "jit", lambda _: product)
    assert measured_peaks.matmul_flops("float32", enough_s=0.9) == pytest.approx(2 * 1024**3 / 1.024)

    def copy(x):
        now[0] += measured_peaks.PASSES * x.nbytes / 1e9
        return x

    monkeypatch.setattr(measured_peaks.jax, "jit", lambda _: copy)
    assert measured_peaks.copy_bandwidth(enough_s=0.1) == pytest.approx(2e9)


def test_the_peak_is_the_data_sheets_in_bfloat16_and_measured_else(monkeypatch):
    class H200:
        device_kind = "NVIDIA H200"

    monkeypatch.setattr(flops, "matmul_flops", lambda dtype, _: {"float32": 5.0, "bfloat16": 7.0}[dtype])
    assert flops.peak_flops("bfloat16") == 7.0
    monkeypatch.setattr(flops.jax, "local_devices", lambda: [H200()])
    assert flops.peak_flops("bfloat16") == 989.4e12
    assert flops.peak_flops("float32") == 5.0


def test_a_real_product_is_measured():
    assert 1e8 < measured_peaks.matmul_flops("float32", enough_s=1e-4) < 1e14
