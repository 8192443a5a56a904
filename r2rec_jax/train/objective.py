"""The GRPO objective on log-probabilities: ratios, clipping, KL, and how tokens are averaged.

    J = E[ 1/G sum_i 1/|o_i| sum_t min(rho_it A_i, clip(rho_it, 1 - e, 1 + e) A_i) - beta KL_it ]

The paper's objective, after Shao et al. 2024 (DeepSeekMath). Every deviation is a field of `GRPOConfig`
and off by default.
"""

import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.train.config import GRPOConfig

LOG_RATIO_LIMIT = 20.0  # e^20 is finite in float32 with room for sums


def group_advantages(reward_BG: np.ndarray, scale_by_std: bool) -> tuple[np.ndarray, float]:
    """(reward - group mean) / group std, float32 [B, G], and the fraction of groups with equal rewards.

    Advantages of a group with equal rewards are 0, not noise over a tiny std. A reward of nan is unknown: it
    is left out of the mean, and its advantage is 0.
    """
    reward_BG = np.asarray(reward_BG, np.float64)  # squares of large rewards would overflow float32
    known = ~np.isnan(reward_BG)
    count_B1 = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean_B1 = np.where(known, reward_BG, 0.0).sum(axis=1, keepdims=True) / count_B1
    centred = np.where(known, reward_BG - mean_B1, 0.0)
    flat = np.ptp(centred, axis=1, keepdims=True) < 1e-6
    std_B1 = np.sqrt(np.square(centred).sum(axis=1, keepdims=True) / count_B1)
    scale = np.where(flat, 1.0, std_B1) if scale_by_std else 1.0
    return np.where(flat, 0.0, centred / scale).astype(np.float32), float(flat.mean())


def token_weights(mask_NR, aggregation: str):
    """Weights, float32 [N, R], under which the sum over tokens is the loss.

    sequence_mean: each completion counts the same (the paper's). token_mean: each token does.
    dr_grpo: a constant divisor, so that length has no weight of its own (Liu et al. 2025).
    They are those of the whole batch: sums over its parts add up to its loss.
    """
    N, R = mask_NR.shape
    if aggregation == "sequence_mean":
        return mask_NR / jnp.maximum(mask_NR.sum(axis=1, keepdims=True), 1.0) / N
    if aggregation == "token_mean":
        return mask_NR / jnp.maximum(mask_NR.sum(), 1.0)
    return mask_NR / (N * R)


def policy_loss(
    logprobs_NR, old_NR, reference_NR, sampler_NR, advantage_N, mask_NR, weights_NR, config: GRPOConfig
):
    """The negated objective, and sums over tokens for the metrics.

    Args:
      logprobs_NR: of the policy, the one argument that is differentiated. old_NR: of the policy that
        sampled. reference_NR: of the frozen one, None leaves the KL out. sampler_NR: as the sampler
        computed them, read when `importance_cap` is set. All float32.
      mask_NR: 1 on tokens that count. weights_NR: from `token_weights`.

    Returns:
      (loss, {"clip_fraction_low", "clip_fraction_high": tokens whose gradient the clip removes; "kl"}),
      the latter to be divided by the number of tokens.
    """
    log_ratio = jnp.clip(logprobs_NR - old_NR, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if config.ratio == "sequence":
        length_N1 = jnp.maximum(mask_NR.sum(axis=1, keepdims=True), 1.0)
        log_ratio = jnp.broadcast_to(
            (log_ratio * mask_NR).sum(axis=1, keepdims=True) / length_N1, mask_NR.shape
        )
    ratio = jnp.exp(log_ratio)
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high
    advantage_N1 = advantage_N[:, None]
    gain = jnp.minimum(ratio * advantage_N1, jnp.clip(ratio, low, high) * advantage_N1)
    if config.dual_clip:
        gain = jnp.where(advantage_N1 < 0, jnp.maximum(gain, config.dual_clip * advantage_N1), gain)
    if config.importance_cap:
        gain *= jnp.minimum(jnp.exp(jax.lax.stop_gradient(old_NR) - sampler_NR), config.importance_cap)
    sums = {
        "clip_fraction_low": jnp.sum((ratio < low) & (advantage_N1 < 0), where=mask_NR > 0),
        "clip_fraction_high": jnp.sum((ratio > high) & (advantage_N1 > 0), where=mask_NR > 0),
    }
    if reference_NR is not None:
        kl = _kl(logprobs_NR, reference_NR, config.kl)
        gain -= config.beta * kl
        sums["kl"] = jnp.sum(kl * mask_NR)
    return -jnp.sum(gain * weights_NR), {name: jnp.float32(value) for name, value in sums.items()}


def _kl(logprobs_NR, reference_NR, estimator: str):
    gap = jnp.clip(reference_NR - logprobs_NR, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if estimator == "k1":
        return -gap
    if estimator == "k2":
        return 0.5 * jnp.square(gap)
    return jnp.exp(gap) - gap - 1.0
