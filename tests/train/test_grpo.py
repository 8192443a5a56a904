"""The GRPO step on a tiny model: which way it moves, what it measures, and in how many parts."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.train.config import AGGREGATIONS, GRPOConfig
from r2rec_jax.train.grpo import GRPOBatch, grpo_update
from r2rec_jax.train.objective import policy_loss, token_weights
from r2rec_jax.train.state import TrainState

MODEL = Llama(LlamaConfig(31, 16, 24, 1, 4, 2, 4, 1e-5, 1000.0, None, 64, False), LoRAConfig(2, 4.0))
DEFAULT = GRPOConfig(clip_low=0.2, clip_high=0.3, beta=0.04, aggregation="sequence_mean")
B, G, P, R = 2, 3, 5, 6
LENGTHS = np.array([6, 1, 3, 5, 2, 4])
MASK = (np.arange(R) < LENGTHS[:, None]).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def full_precision():
    with jax.default_matmul_precision("float32"):
        yield


def make_batch(advantage, **changes) -> GRPOBatch:
    rng = np.random.default_rng(2)
    completions = CompletionBatch(
        prompt=rng.integers(0, 31, (B, P)).astype(np.int32),
        prompt_length=np.array([5, 3], np.int32),
        response=rng.integers(0, 31, (B * G, R)).astype(np.int32),
        response_mask=MASK,
    )
    batch = GRPOBatch(completions, np.asarray(advantage, np.float32), np.zeros((B * G, R), np.float32))
    return batch.replace(**changes)


ADVANTAGE = np.array([1.0, -0.5, -0.5, 1.2, -1.2, 0.0])


@pytest.fixture(scope="module")
def policy():
    """(base, reference, trainable): the trainable stands a little away from the reference."""
    variables = jax.jit(lambda: init_variables(MODEL, seed=0))()
    rng = np.random.default_rng(1)

    def away(leaf):
        return leaf + np.float32(0.1 * rng.normal(size=leaf.shape))

    reference = {"lora": jax.tree.map(away, variables["lora"])}
    return {"params": variables["params"]}, reference, jax.tree.map(away, reference)


SGD = optax.sgd(0.1)  # the one optimiser whose step is the gradient


@functools.cache
def compiled(config, temperature, parts):
    return jax.jit(functools.partial(grpo_update, MODEL, SGD, config, temperature, parts=parts))


def take_step(policy, batch, parts=1, temperature=1.0, **changes):
    base, reference, trainable = policy
    state = TrainState.create(trainable, SGD)
    config = dataclasses.replace(DEFAULT, **changes)
    return compiled(config, temperature, parts)(state, {"base": base, "reference": reference}, batch)


@functools.cache
def scorer(temperature):
    return jax.jit(lambda v, c: completion_logprobs(MODEL, v, c, temperature=temperature)[0])


def logprobs_of(policy, trainable, completions, temperature=1.0):
    return scorer(temperature)({**policy[0], **trainable}, completions)


def test_without_advantage_and_kl_nothing_moves(policy):
    state, metrics = take_step(policy, make_batch(np.zeros(6)), beta=0.0)
    jax.tree.map(np.testing.assert_array_equal, state.trainable, policy[2])
    assert metrics["train/grad_norm"] == 0 and metrics["train/loss"] == 0 and int(state.step) == 1


def test_an_advantage_moves_the_log_probability_its_way(policy):
    for row, sign in ((1, 1.0), (3, -1.0)):
        batch = make_batch(sign * np.eye(6)[row])
        state, _ = take_step(policy, batch, beta=0.0)
        before, after = (
            (logprobs_of(policy, trainable, batch.completions) * MASK)[row].sum()
            for trainable in (policy[2], state.trainable)
        )
        assert sign * (after - before) > 1e-4


def test_one_step_is_the_reinforce_step(policy):
    batch = make_batch(ADVANTAGE)
    state, metrics = take_step(policy, batch, beta=0.0)

    def surrogate(trainable):
        logprobs = completion_logprobs(MODEL, {**policy[0], **trainable}, batch.completions)[0]
        return -jnp.sum(ADVANTAGE[:, None] * logprobs * MASK / LENGTHS[:, None]) / (B * G)

    grads = jax.jit(jax.grad(surrogate))(policy[2])
    expected = jax.tree.map(lambda x, g: x - 0.1 * g, policy[2], grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.trainable, expected)
    norm = math.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(metrics["train/grad_norm"], norm, rtol=1e-4)
    # Every ratio is 1: the objective is the mean advantage of the completions.
    np.testing.assert_allclose(metrics["train/loss"], -ADVANTAGE.mean(), atol=1e-6)
    assert metrics["train/clip_fraction_low"] == metrics["train/clip_fraction_high"] == 0


def test_kl_is_zero_at_the_reference_and_pulls_back_to_it(policy):
    base, reference, _ = policy
    batch = make_batch(np.zeros(6))
    _, at_reference = take_step((base, reference, reference), batch, beta=1.0)
    assert at_reference["train/kl"] == pytest.approx(0, abs=1e-6)
    assert at_reference["train/grad_norm"] == pytest.approx(0, abs=1e-4)
    nearer, away = take_step(policy, batch, beta=1.0)
    assert away["train/kl"] > 1e-4
    _, after = take_step((base, reference, nearer.trainable), batch, beta=1.0)
    assert after["train/kl"] < away["train/kl"]


def test_no_old_log_probabilities_mean_the_current_ones(policy):
    batch = make_batch(ADVANTAGE)
    current = logprobs_of(policy, policy[2], batch.completions)
    first, metrics = take_step(policy, batch)
    second, same = take_step(policy, batch.replace(old_logprobs=current))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), first.trainable, second.trainable)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], same[name], rtol=1e-4, atol=1e-6)


def test_off_policy_steps_are_measured_from_the_old_policy(policy):
    batch = make_batch(ADVANTAGE)
    current = logprobs_of(policy, policy[2], batch.completions)
    old = current + np.random.default_rng(3).normal(0, 0.5, current.shape)
    _, metrics = take_step(policy, batch.replace(old_logprobs=np.float32(old)))
    reference = logprobs_of(policy, policy[1], batch.completions)
    weights = token_weights(MASK, DEFAULT.aggregation)
    loss, sums = policy_loss(current, old, reference, old, jnp.float32(ADVANTAGE), MASK, weights, DEFAULT)
    np.testing.assert_allclose(metrics["train/loss"], loss, rtol=1e-4)
    for name, value in sums.items():
        np.testing.assert_allclose(metrics[f"train/{name}"], value / MASK.sum(), rtol=1e-4)
    assert sums["clip_fraction_low"] > 0 or sums["clip_fraction_high"] > 0


def test_the_samplers_gap_is_taken_at_its_temperature(policy):
    batch = make_batch(ADVANTAGE)
    hot = logprobs_of(policy, policy[2], batch.completions, 2.0)
    batch = batch.replace(sampler_logprobs=np.asarray(hot))
    _, matching = take_step(policy, batch, beta=0.0, temperature=2.0)
    assert matching["train/sampler_logprob_gap"] == pytest.approx(0, abs=1e-5)
    _, metrics = take_step(policy, batch)
    gap = np.abs(logprobs_of(policy, policy[2], batch.completions) - hot) * MASK
    np.testing.assert_allclose(metrics["train/sampler_logprob_gap"], gap.sum() / MASK.sum(), rtol=1e-4)
    assert all(value.dtype == jnp.float32 and value.shape == () for value in metrics.values())


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_micro_batches_add_up_to_the_batch(policy, aggregation):
    batch = make_batch(ADVANTAGE)
    current = logprobs_of(policy, policy[2], batch.completions)
    old = current + np.random.default_rng(3).normal(0, 0.5, current.shape)
    batch = batch.replace(old_logprobs=np.float32(old), sampler_logprobs=np.float32(old))
    whole, metrics = take_step(policy, batch, aggregation=aggregation, importance_cap=2.0)
    parts, same = take_step(policy, batch, parts=2, aggregation=aggregation, importance_cap=2.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole.trainable, parts.trainable)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], same[name], rtol=1e-4, atol=1e-6)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(policy):
    state, metrics = take_step(policy, make_batch(ADVANTAGE * np.nan))
    jax.tree.map(np.testing.assert_array_equal, state.trainable, policy[2])
    assert metrics["train/skipped_count"] == 1 and int(state.step) == 0
    _, metrics = take_step(policy, make_batch(ADVANTAGE))
    assert metrics["train/skipped_count"] == 0


def test_the_base_and_the_reference_stay(policy):
    base, reference, _ = policy
    before = jax.tree.map(np.array, (base, reference))
    take_step(policy, make_batch(ADVANTAGE))
    jax.tree.map(np.testing.assert_array_equal, before, (base, reference))
