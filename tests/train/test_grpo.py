"""The GRPO objective against its formula written out token by token, and one step on a tiny model."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.config import LlamaConfig
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.model.lora import LoRAConfig
from r2rec_jax.train.grpo import (
    AGGREGATIONS,
    GRPOBatch,
    GRPOConfig,
    group_advantages,
    grpo_step,
    policy_loss,
    token_weights,
)
from r2rec_jax.train.state import TrainState

MODEL = Llama(LlamaConfig(31, 16, 24, 1, 4, 2, 4, 1e-5, 1000.0, None, 64, False), LoRAConfig(2, 4.0))
DEFAULT = GRPOConfig(clip_low=0.2, clip_high=0.3, beta=0.04, aggregation="sequence_mean", temperature=1.0)
B, G, P, R = 2, 3, 5, 6
LENGTHS = np.array([6, 1, 3, 5, 2, 4])
MASK = (np.arange(R) < LENGTHS[:, None]).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def full_precision():
    with jax.default_matmul_precision("float32"):
        yield


@pytest.fixture
def arrays():
    """(logprobs, old, reference, advantage): ratios on both sides of both clips, both signs."""
    rng = np.random.default_rng(0)
    logprobs = -rng.exponential(1.0, MASK.shape)
    old = logprobs + rng.normal(0.0, 0.4, MASK.shape)
    reference = logprobs + rng.normal(0.0, 0.5, MASK.shape)
    return logprobs, old, reference, np.array([1.3, -0.7, 0.0, -1.1, 0.4, 2.0])


def by_the_formula(logprobs, old, reference, advantage, mask, config) -> dict[str, float]:
    """PAPER.md formula 4, a token at a time in Python floats, negated; and what is reported of it."""
    N, R = mask.shape
    loss = kl_sum = clipped_tokens = 0.0
    for n in range(N):
        for t in range(R):
            if not mask[n, t]:
                continue
            share = {
                "sequence_mean": 1 / N / mask[n].sum(),
                "token_mean": 1 / mask.sum(),
                "dr_grpo": 1 / (N * R),
            }[config.aggregation]
            rho, A = math.exp(logprobs[n, t] - old[n, t]), advantage[n]
            low, high = 1 - config.clip_low, 1 + config.clip_high
            gain = min(rho * A, min(max(rho, low), high) * A)
            # The minimum takes the clipped side only where the clip forbids to gain more.
            clipped_tokens += (A > 0 and rho > high) or (A < 0 and rho < low)
            if reference is not None:
                r = math.exp(reference[n, t] - logprobs[n, t])
                kl = r - math.log(r) - 1
                kl_sum += kl
                gain -= config.beta * kl
            loss -= gain * share
    tokens = mask.sum()
    return {"loss": loss, "kl": kl_sum / tokens, "clip_fraction": clipped_tokens / tokens}


@pytest.mark.parametrize("beta", [0.0, 0.04, 0.5])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_policy_loss_is_the_formula(arrays, aggregation, beta):
    config = dataclasses.replace(DEFAULT, aggregation=aggregation, beta=beta)
    logprobs, old, reference, advantage = arrays
    reference = reference if beta else None
    loss, metrics = policy_loss(
        *(None if a is None else jnp.float32(a) for a in (logprobs, old, reference)),
        jnp.float32(advantage),
        MASK,
        config,
    )
    expected = by_the_formula(logprobs, old, reference, advantage, MASK, config)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["train/clip_fraction"], expected["clip_fraction"], rtol=1e-6)
    assert 0 < expected["clip_fraction"] < 1
    if beta:
        np.testing.assert_allclose(metrics["train/kl"], expected["kl"], rtol=1e-4)
    else:
        assert "train/kl" not in metrics


@pytest.mark.parametrize(
    "change",
    [{"clip_low": 0.1}, {"clip_high": 0.1}, {"beta": 0.2}, *({"aggregation": a} for a in AGGREGATIONS[1:])],
    ids=str,
)
def test_every_setting_changes_the_loss(arrays, change):
    logprobs, old, reference, advantage = map(jnp.float32, arrays)
    one, _ = policy_loss(logprobs, old, reference, advantage, MASK, DEFAULT)
    other, _ = policy_loss(logprobs, old, reference, advantage, MASK, dataclasses.replace(DEFAULT, **change))
    assert abs(float(one - other)) > 1e-4


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_gradient_at_ratio_one_is_reinforce(arrays, aggregation):
    logprobs, _, _, advantage = map(jnp.float32, arrays)
    config = dataclasses.replace(DEFAULT, aggregation=aggregation)
    grad = jax.grad(lambda x: policy_loss(x, logprobs, None, advantage, MASK, config)[0])(logprobs)
    divisor = {
        "sequence_mean": B * G * LENGTHS[:, None],
        "token_mean": LENGTHS.sum(),
        "dr_grpo": B * G * R,
    }[aggregation]
    np.testing.assert_allclose(grad, -advantage[:, None] * MASK / divisor, rtol=1e-6)


def test_the_gradient_off_policy_is_that_of_finite_differences(arrays):
    logprobs, old, reference, advantage = arrays
    arguments = map(jnp.float32, (old, reference, advantage, MASK))
    grad = jax.grad(lambda x, *rest: policy_loss(x, *rest, DEFAULT)[0])(jnp.float32(logprobs), *arguments)
    expected, step = np.zeros(MASK.shape), 1e-6
    for at in np.ndindex(MASK.shape):
        sides = []
        for sign in (1, -1):
            moved = logprobs.copy()
            moved[at] += sign * step
            sides.append(by_the_formula(moved, old, reference, advantage, MASK, DEFAULT)["loss"])
        expected[at] = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-6)


def test_padding_and_empty_completions_weigh_nothing(arrays):
    logprobs, old, reference, advantage = map(jnp.float32, arrays)
    for aggregation in AGGREGATIONS:
        config = dataclasses.replace(DEFAULT, aggregation=aggregation)
        loss, _ = policy_loss(logprobs, old, reference, advantage, MASK, config)
        noisy = jnp.where(MASK == 1, logprobs, -7.0)
        same, _ = policy_loss(noisy, old, reference, advantage, MASK, config)
        assert loss == same
        nothing, _ = policy_loss(logprobs, old, reference, advantage, 0 * MASK, config)
        assert nothing == 0


def test_weights_sum_to_one_where_they_average():
    for aggregation in ("sequence_mean", "token_mean"):
        np.testing.assert_allclose(token_weights(MASK, aggregation).sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(token_weights(MASK, "dr_grpo").sum(), MASK.mean(), rtol=1e-6)
    with pytest.raises(ValueError, match="sequence_mean, token_mean, dr_grpo"):
        token_weights(MASK, "mean")


def test_group_advantages_in_closed_form():
    rewards = np.array([[1.0, 2.0, 3.0, 6.0], [0.3, 0.3, 0.3, 0.3], [0.0, 0.0, 0.0, 4.0]], np.float32)
    scaled, flat = group_advantages(rewards, scale_by_std=True)
    assert scaled.dtype == np.float32 and flat == pytest.approx(1 / 3)
    first = np.array([-2.0, -1.0, 0.0, 3.0]) / math.sqrt((4 + 1 + 0 + 9) / 4)
    np.testing.assert_allclose(scaled, [first, [0] * 4, np.array([-1, -1, -1, 3]) / math.sqrt(3)], rtol=1e-6)
    centred, _ = group_advantages(rewards, scale_by_std=False)
    np.testing.assert_allclose(centred, [[-2, -1, 0, 3], [0] * 4, [-1, -1, -1, 3]], atol=1e-6)


def test_rounding_noise_is_no_advantage():
    noise = np.float32(1.7) + np.array([[0, 1, 0, -1]], np.float32) * np.float32(1e-7)
    advantage, flat = group_advantages(noise, scale_by_std=True)
    assert flat == 1.0 and not advantage.any()


def test_advantages_ignore_shift_and_scale_of_the_reward():
    rewards = np.random.default_rng(1).random((5, 8)).astype(np.float32)
    one, _ = group_advantages(rewards, True)
    other, _ = group_advantages(3 * rewards + 7, True)
    np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_allclose(one.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(one.std(axis=1), 1, rtol=1e-5)


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
def compiled(config):
    return jax.jit(functools.partial(grpo_step, MODEL, SGD, config))


def take_step(policy, batch, **changes):
    base, reference, trainable = policy
    state = TrainState.create(trainable, SGD)
    config = dataclasses.replace(DEFAULT, **changes)
    return compiled(config)(state, {"base": base, "reference": reference}, batch)


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
    assert metrics["train/clip_fraction"] == 0


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
    expected = by_the_formula(*(np.float64(x) for x in (current, old, reference)), ADVANTAGE, MASK, DEFAULT)
    np.testing.assert_allclose(metrics["train/loss"], expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(metrics["train/clip_fraction"], expected["clip_fraction"], rtol=1e-5)
    assert expected["clip_fraction"] > 0


def test_the_samplers_gap_is_taken_at_its_temperature(policy):
    batch = make_batch(ADVANTAGE)
    hot = logprobs_of(policy, policy[2], batch.completions, 2.0)
    batch = batch.replace(sampler_logprobs=np.asarray(hot))
    _, matching = take_step(policy, batch, beta=0.0, temperature=2.0)
    assert matching["train/sampler_gap"] == pytest.approx(0, abs=1e-5)
    _, metrics = take_step(policy, batch)
    gap = np.abs(logprobs_of(policy, policy[2], batch.completions) - hot) * MASK
    np.testing.assert_allclose(metrics["train/sampler_gap"], gap.sum() / MASK.sum(), rtol=1e-4)
    assert all(value.dtype == jnp.float32 and value.shape == () for value in metrics.values())


def test_the_base_and_the_reference_stay(policy):
    base, reference, _ = policy
    before = jax.tree.map(np.array, (base, reference))
    take_step(policy, make_batch(ADVANTAGE))
    jax.tree.map(np.testing.assert_array_equal, before, (base, reference))
