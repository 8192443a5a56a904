"""The GRPO step: clipped policy gradient on group-relative advantages, with KL to the SFT policy.

    J = E[ 1/G sum_i 1/|o_i| sum_t min(rho_it A_i, clip(rho_it, 1 - e, 1 + e) A_i) - beta KL_it ]

The paper's objective, after Shao et al. 2024 (DeepSeekMath).
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.llama import Llama
from r2rec_jax.train.state import TrainState

AGGREGATIONS = ("sequence_mean", "token_mean", "dr_grpo")


@dataclasses.dataclass(frozen=True)
class GRPOConfig:
    """`clip_low`, `clip_high`: the ratio is kept within [1 - low, 1 + high]. `beta`: weight of the KL, 0
    skips the reference. `aggregation`: how tokens are averaged, see `token_weights`. `temperature`: of
    the sampler, so that both sides speak of the same distribution."""

    clip_low: float
    clip_high: float
    beta: float
    aggregation: str
    temperature: float


@flax.struct.dataclass
class GRPOBatch:
    """Groups of completions with what the update needs to know of them.

    advantage: float32 [N]. sampler_logprobs: float32 [N, R]. old_logprobs: float32 [N, R] of the policy
    that sampled, None when this is the first update of a rollout: then they are the current ones.
    """

    completions: CompletionBatch
    advantage: jax.Array
    sampler_logprobs: jax.Array
    old_logprobs: jax.Array | None = None


def group_advantages(reward_BG: np.ndarray, scale_by_std: bool) -> tuple[np.ndarray, float]:
    """(reward - group mean) / group std, float32 [B, G], and the fraction of groups with equal rewards.

    Such a group says nothing about its members: its advantages are 0, not noise over a tiny std.
    """
    centred = reward_BG - reward_BG.mean(axis=1, keepdims=True)
    flat = np.ptp(reward_BG, axis=1, keepdims=True) < 1e-6
    scale = np.where(flat, 1.0, reward_BG.std(axis=1, keepdims=True)) if scale_by_std else 1.0
    return np.where(flat, 0.0, centred / scale).astype(np.float32), float(flat.mean())


def token_weights(mask_NR, aggregation: str):
    """Weights, float32 [N, R], under which the sum over tokens is the loss.

    sequence_mean: each completion counts the same (the paper's). token_mean: each token does.
    dr_grpo: a constant divisor, so that length is neither rewarded nor punished (Liu et al. 2025).
    """
    N, R = mask_NR.shape
    if aggregation == "sequence_mean":
        return mask_NR / jnp.maximum(mask_NR.sum(axis=1, keepdims=True), 1.0) / N
    if aggregation == "token_mean":
        return mask_NR / jnp.maximum(mask_NR.sum(), 1.0)
    if aggregation == "dr_grpo":
        return mask_NR / (N * R)
    raise ValueError(f"aggregation {aggregation!r}: use one of {', '.join(AGGREGATIONS)}")


def policy_loss(logprobs_NR, old_NR, reference_NR, advantage_N, mask_NR, config: GRPOConfig):
    """(loss, metrics): the negated objective; `reference_NR` None leaves the KL out."""
    weights = token_weights(mask_NR, config.aggregation)
    ratio = jnp.exp(logprobs_NR - old_NR)
    clipped = jnp.clip(ratio, 1.0 - config.clip_low, 1.0 + config.clip_high)
    advantage_N1 = advantage_N[:, None]
    objective = jnp.minimum(ratio * advantage_N1, clipped * advantage_N1)
    tokens = jnp.maximum(mask_NR.sum(), 1.0)
    is_clipped = (clipped * advantage_N1 < ratio * advantage_N1) * mask_NR
    metrics = {"train/clip_fraction": is_clipped.sum() / tokens}
    if reference_NR is not None:
        # Schulman's k3: unbiased and never negative.
        gap = jnp.clip(reference_NR - logprobs_NR, -20.0, 20.0)
        kl = jnp.exp(gap) - gap - 1.0
        objective -= config.beta * kl
        metrics["train/kl"] = jnp.sum(kl * mask_NR) / tokens
    return -jnp.sum(objective * weights), metrics


def grpo_step(model: Llama, optimizer, config: GRPOConfig, state: TrainState, frozen: dict, batch: GRPOBatch):
    """One update; pure, to be jitted with `model`, `optimizer` and `config` bound.

    `frozen` is {'base': the variables that do not train, 'reference': the frozen SFT policy's trainable
    ones}. Returns (state, metrics of float32 scalars).
    """
    completions, mask_NR = batch.completions, batch.completions.response_mask

    def logprobs_of(trainable):
        variables = {**frozen["base"], **trainable}
        return completion_logprobs(model, variables, completions, temperature=config.temperature)

    reference_NR = None
    if config.beta:
        with jax.named_scope("reference"):
            reference_NR = jax.lax.stop_gradient(logprobs_of(frozen["reference"])[0])

    def loss_of(trainable):
        logprobs_NR, entropy_NR = logprobs_of(trainable)
        current_NR = jax.lax.stop_gradient(logprobs_NR)
        old_NR = current_NR if batch.old_logprobs is None else batch.old_logprobs
        loss, metrics = policy_loss(logprobs_NR, old_NR, reference_NR, batch.advantage, mask_NR, config)
        tokens = jnp.maximum(mask_NR.sum(), 1.0)
        gap_NR = jnp.abs(current_NR - batch.sampler_logprobs) * mask_NR
        metrics |= {
            "train/entropy": jnp.sum(entropy_NR * mask_NR) / tokens,
            "train/sampler_gap": gap_NR.sum() / tokens,
        }
        return loss, metrics

    with jax.named_scope("loss_and_gradient"):
        (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(state.trainable)
    metrics |= {"train/loss": loss, "train/grad_norm": optax.tree.norm(grads)}
    with jax.named_scope("optimizer"):
        return state.apply_gradients(grads, optimizer), metrics
