"""The optimiser against AdamW, its clipping and its schedule written out in numpy."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from r2rec_jax.train.optimizer import learning_rate, make_optimizer

DEFAULT = {
    "learning_rate": 0.1,
    "warmup_fraction": 0.2,
    "final_fraction": 0.1,
    "clip_norm": 1.0,
    "b1": 0.9,
    "b2": 0.99,
    "weight_decay": 0.05,
}
STEPS = 20


def make_config(**changes) -> ConfigDict:
    return ConfigDict({"optimizer": DEFAULT | changes})


def make(**changes):
    return make_optimizer(make_config(**changes).optimizer, STEPS)


def rate(step: int) -> float:
    """Four updates up, sixteen along a half cosine down to a tenth."""
    if step < 4:
        return 0.1 * (step + 1) / 4
    return 0.01 + 0.09 * (1 + math.cos(math.pi * (step - 3) / 16)) / 2


def test_the_schedule_in_closed_form():
    schedule = learning_rate(make_config().optimizer, STEPS)
    np.testing.assert_allclose([schedule(k) for k in range(20)], [rate(k) for k in range(20)], rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_a_schedule(steps):
    schedule = learning_rate(make_config(warmup_fraction=0.0).optimizer, steps)
    rates = [float(schedule(k)) for k in range(steps)]
    assert all(0 < r <= 0.1 + 1e-7 for r in rates)


def test_updates_are_adamw_on_clipped_gradients():
    optimizer = make()
    rng = np.random.default_rng(0)
    weight = rng.normal(size=5)
    first = second = np.zeros(5)
    params = {"w": jnp.float32(weight)}
    state = optimizer.init(params)
    for step in range(6):
        gradient = rng.normal(size=5) * 10.0 ** (step % 3 - 1)  # some above the norm of 1, some below
        updates, state = optimizer.update({"w": jnp.float32(gradient)}, state, params)
        params = optax.apply_updates(params, updates)

        gradient = gradient * min(1.0, 1.0 / np.linalg.norm(gradient))
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        scaled = (first / (1 - 0.9 ** (step + 1))) / (np.sqrt(second / (1 - 0.99 ** (step + 1))) + 1e-8)
        weight = weight - rate(step) * (scaled + 0.05 * weight)
        np.testing.assert_allclose(params["w"], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [{"clip_norm": 0.1}, {"b1": 0.5}, {"b2": 0.5}, {"weight_decay": 0.0}, {"learning_rate": 0.2}],
    ids=str,
)
def test_every_setting_changes_the_updates(change):
    ends = []
    for changes in ({}, change):
        optimizer = make(**changes)
        params = {"w": jnp.array([1.0, -2.0])}
        state = optimizer.init(params)
        for gradient in ([0.1, -0.2], [3.0, 1.0], [0.3, 0.3]):
            updates, state = optimizer.update({"w": jnp.array(gradient)}, state, params)
            params = optax.apply_updates(params, updates)
        ends.append(np.asarray(params["w"]))
    assert not np.allclose(*ends, rtol=1e-4)
