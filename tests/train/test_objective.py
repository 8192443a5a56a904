"""The GRPO objective against its formula written out token by token, and against TRL's."""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train.config import AGGREGATIONS, KLS, GRPOConfig
from r2rec_jax.train.objective import (
    group_advantages,
    policy_loss,
    token_weights,
)

DEFAULT = GRPOConfig(clip_low=0.2, clip_high=0.3, beta=0.04, aggregation="sequence_mean")
B, G, R = 2, 3, 6
LENGTHS = np.array([6, 1, 3, 5, 2, 4])
MASK = (np.arange(R) < LENGTHS[:, None]).astype(np.float32)
VARIANTS = [
    {},
    {"ratio": "sequence"},
    {"dual_clip": 1.5},
    {"kl": "k1"},
    {"kl": "k2"},
    {"importance_cap": 1.2},
    {"ratio": "sequence", "dual_clip": 1.35, "importance_cap": 1.1, "kl": "k2"},
]


@pytest.fixture
def arrays():
    """(logprobs, old, reference, sampler, advantage): ratios on both sides of both clips, both signs."""
    rng = np.random.default_rng(0)
    logprobs = -rng.exponential(1.0, MASK.shape)
    shift = np.array([0.5, -0.4, 0.3, 0.6, -0.5, -0.6])[
        :, None
    ]  # below and above, whatever the ratio's level
    old = logprobs + shift + rng.normal(0.0, 0.4, MASK.shape)
    reference = logprobs + rng.normal(0.0, 0.5, MASK.shape)
    sampler = old + rng.normal(0.0, 0.3, MASK.shape)
    return logprobs, old, reference, sampler, np.array([1.3, -0.7, 0.0, -1.1, 0.4, 2.0])


@functools.partial(jax.jit, static_argnums=1)
def loss_of(arrays, config, mask=MASK):
    """(loss, sums) as the step computes them."""
    logprobs, old, reference, sampler, advantage = (jnp.float32(a) for a in arrays)
    weights = token_weights(mask, config.aggregation)
    reference = reference if config.beta else None
    return policy_loss(logprobs, old, reference, sampler, advantage, mask, weights, config)


def by_the_formula(arrays, config, mask=MASK) -> dict[str, float]:
    """GRPO (DeepSeekMath, arXiv 2402.03300) and its options, a token at a time in Python floats, negated."""
    logprobs, old, reference, sampler, advantage = arrays
    N, R = mask.shape
    out = dict.fromkeys(("loss", "kl", "clip_fraction_low", "clip_fraction_high"), 0.0)
    for n in range(N):
        A = advantage[n]
        for t in range(R):
            if not mask[n, t]:
                continue
            share = {
                "sequence_mean": 1 / N / mask[n].sum(),
                "token_mean": 1 / mask.sum(),
                "dr_grpo": 1 / (N * R),
            }[config.aggregation]
            rho = math.exp(logprobs[n, t] - old[n, t])
            if config.ratio == "sequence":
                length = int(mask[n].sum())
                rho = math.prod(math.exp(logprobs[n, k] - old[n, k]) for k in range(length)) ** (1 / length)
            low, high = 1 - config.clip_low, 1 + config.clip_high
            gain = min(rho * A, min(max(rho, low), high) * A)
            if config.dual_clip and A < 0:
                gain = max(gain, config.dual_clip * A)
            if config.importance_cap:
                gain *= min(math.exp(old[n, t] - sampler[n, t]), config.importance_cap)
            # The minimum takes the clipped side only where the clip forbids to gain more.
            out["clip_fraction_high"] += A > 0 and rho > high
            out["clip_fraction_low"] += A < 0 and rho < low
            if config.beta:
                r = math.exp(reference[n, t] - logprobs[n, t])
                kl = {"k1": -math.log(r), "k2": math.log(r) ** 2 / 2, "k3": r - math.log(r) - 1}[config.kl]
                out["kl"] += kl
                gain -= config.beta * kl
            out["loss"] -= gain * share
    return out


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_policy_loss_is_the_formula(arrays, aggregation, beta, variant):
    config = dataclasses.replace(DEFAULT, aggregation=aggregation, beta=beta, **variant)
    loss, sums = loss_of(arrays, config)
    expected = by_the_formula(arrays, config)
    np.testing.assert_allclose(loss, expected.pop("loss"), rtol=2e-5)
    assert expected["clip_fraction_low"] > 0 and expected["clip_fraction_high"] > 0
    if not beta:
        del expected["kl"]
    assert sums.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"clip_low": 0.1},
        {"clip_high": 0.1},
        {"beta": 0.2},
        *({"aggregation": a} for a in AGGREGATIONS[1:]),
        *({"kl": k} for k in KLS[:2]),
        {"ratio": "sequence"},
        {"dual_clip": 1.31},
        {"importance_cap": 1.5},
    ],
    ids=str,
)
def test_every_setting_changes_the_loss(arrays, change):
    one, _ = loss_of(arrays, DEFAULT)
    other, _ = loss_of(arrays, dataclasses.replace(DEFAULT, **change))
    assert abs(float(one - other)) > 1e-4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"aggregation": "mean"}, "grpo.aggregation='mean': use one of sequence_mean, token_mean"),
        ({"ratio": "word"}, "grpo.ratio='word'"),
        ({"kl": "k4"}, "grpo.kl='k4': use one of k1, k2, k3"),
        ({"dual_clip": 1.25}, "grpo.dual_clip=1.25: use more than 1"),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(change, named):
    with pytest.raises(UserError, match=named):
        dataclasses.replace(DEFAULT, **change)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_gradient_at_ratio_one_is_reinforce(arrays, aggregation):
    logprobs, _, _, _, advantage = map(jnp.float32, arrays)
    config = dataclasses.replace(DEFAULT, aggregation=aggregation)
    weights = token_weights(MASK, aggregation)

    def loss(x):
        return policy_loss(x, logprobs, None, logprobs, advantage, MASK, weights, config)[0]

    divisor = {
        "sequence_mean": B * G * LENGTHS[:, None],
        "token_mean": LENGTHS.sum(),
        "dr_grpo": B * G * R,
    }[aggregation]
    np.testing.assert_allclose(jax.grad(loss)(logprobs), -advantage[:, None] * MASK / divisor, rtol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_gradient_off_policy_is_that_of_finite_differences(arrays, variant):
    config = dataclasses.replace(DEFAULT, **variant)
    logprobs, *others = arrays
    grad = jax.grad(lambda x: loss_of((x, *others), config)[0])(jnp.float32(logprobs))
    expected, step = np.zeros(MASK.shape), 1e-6
    for at in np.ndindex(MASK.shape):
        sides = []
        for sign in (1, -1):
            moved = logprobs.copy()
            moved[at] += sign * step
            sides.append(by_the_formula((moved, *others), config)["loss"])
        expected[at] = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-6)


def test_padding_and_empty_completions_weigh_nothing(arrays):
    logprobs, *others = arrays
    for aggregation in AGGREGATIONS:
        for ratio in ("token", "sequence"):
            config = dataclasses.replace(DEFAULT, aggregation=aggregation, ratio=ratio)
            loss, _ = loss_of(arrays, config)
            same, _ = loss_of((np.where(MASK == 1, logprobs, -7.0), *others), config)
            assert loss == same
            nothing, _ = loss_of(arrays, config, 0 * MASK)
            assert nothing == 0


def test_a_runaway_ratio_stays_finite(arrays):
    logprobs, _, _, sampler, advantage = arrays
    far = logprobs - 200.0
    for variant in VARIANTS:
        config = dataclasses.replace(DEFAULT, **variant)
        loss, grad = jax.value_and_grad(
            lambda x, config=config: loss_of((x, far, far, sampler, advantage), config)[0]
        )(jnp.float32(logprobs))
        assert np.isfinite(loss) and np.isfinite(grad).all()


TRL = Path(__file__).parents[1] / "golden" / "trl_grpo.npz"


@pytest.mark.parametrize("case", sorted({name.split("/")[0] for name in np.load(TRL).files} - {"input"}))
def test_loss_and_gradient_are_trls(case):
    golden = np.load(TRL)
    options = {"clip_low": 0.2, "clip_high": 0.3}
    names = {"grpo": "sequence_mean", "bnpo": "token_mean", "dr_grpo": "dr_grpo"}
    loss_type, ratio, delta, beta, corrected = case.split(",")
    config = GRPOConfig(
        aggregation=names[loss_type],
        ratio=ratio,
        dual_clip=float(delta),
        beta=float(beta),
        importance_cap=1.2 * (corrected == "corrected"),
        **options,
    )
    names = ("logprobs", "old", "reference", "sampler", "advantage", "mask")
    logprobs, *others, mask = (golden[f"input/{name}"] for name in names)
    loss, grad = jax.value_and_grad(lambda x: loss_of((x, *others), config, mask)[0])(jnp.float32(logprobs))
    np.testing.assert_allclose(loss, golden[f"{case}/loss"], rtol=2e-5)
    np.testing.assert_allclose(grad, golden[f"{case}/gradient"], rtol=1e-4, atol=1e-7)


def test_weights_sum_to_one_where_they_average():
    for aggregation in ("sequence_mean", "token_mean"):
        np.testing.assert_allclose(token_weights(MASK, aggregation).sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(token_weights(MASK, "dr_grpo").sum(), MASK.mean(), rtol=1e-6)


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


def test_a_reward_that_is_not_known_is_no_part_of_its_group():
    nan = np.nan
    rewards = np.array(
        [[1.0, nan, 3.0, 5.0], [nan, nan, nan, 2.0], [nan] * 4, [2.0, nan, 2.0, 2.0]], np.float32
    )
    for scale in (True, False):
        advantage, flat = group_advantages(rewards, scale)
        alone, _ = group_advantages(rewards[:1, [0, 2, 3]], scale)
        np.testing.assert_allclose(advantage[0, [0, 2, 3]], alone[0], rtol=1e-6)
        assert advantage[0, 1] == 0 and not advantage[1:].any()
        assert flat == 0.75


@pytest.mark.parametrize("size", [1e19, 1e30, 3e38])
def test_large_rewards_overflow_nothing(size):
    rewards = np.array([[size, -size, 0.0, size]], np.float32)
    one, _ = group_advantages(rewards, True)
    other, _ = group_advantages(rewards / np.float32(size), True)
    np.testing.assert_allclose(one, other, rtol=1e-6)
