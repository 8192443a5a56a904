"""The GRPO step: one update of the policy on groups of its own completions."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.llama import Llama
from r2rec_jax.train.accumulate import summed
from r2rec_jax.train.objective import GRPOConfig, policy_loss, token_weights
from r2rec_jax.train.state import TrainState


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


def grpo_step(
    model: Llama,
    optimizer,
    config: GRPOConfig,
    state: TrainState,
    frozen: dict,
    batch: GRPOBatch,
    parts: int = 1,
):
    """One update; pure, to be jitted with `model`, `optimizer`, `config` and `parts` bound.

    `frozen` is {'base': the variables that do not train, 'reference': the frozen SFT policy's trainable
    ones}. The batch is taken in `parts` micro-batches, whose sum is exactly the gradient of the whole. An
    update that is not finite is skipped.

    Returns (state, metrics of float32 scalars).
    """
    mask_NR = batch.completions.response_mask
    weights_NR = token_weights(mask_NR, config.aggregation)

    def logprobs_of(trainable, completions):
        variables = {**frozen["base"], **trainable}
        return completion_logprobs(model, variables, completions, temperature=config.temperature)

    def loss_and_gradient(part, _):
        batch, weights_NR = part
        mask_NR = batch.completions.response_mask
        reference_NR = None
        if config.beta:
            with jax.named_scope("reference"):
                reference_NR = jax.lax.stop_gradient(logprobs_of(frozen["reference"], batch.completions)[0])

        def loss_of(trainable):
            logprobs_NR, entropy_NR = logprobs_of(trainable, batch.completions)
            current_NR = jax.lax.stop_gradient(logprobs_NR)
            old_NR = current_NR if batch.old_logprobs is None else batch.old_logprobs
            sampler_NR = batch.sampler_logprobs
            loss, sums = policy_loss(
                logprobs_NR,
                old_NR,
                reference_NR,
                sampler_NR,
                batch.advantage,
                mask_NR,
                weights_NR,
                config,
            )
            sums["entropy"] = jnp.sum(entropy_NR * mask_NR)
            sums["sampler_gap"] = jnp.sum(jnp.abs(current_NR - sampler_NR) * mask_NR)
            return loss, sums

        with jax.named_scope("loss_and_gradient"):
            return jax.value_and_grad(loss_of, has_aux=True)(state.trainable)

    (loss, sums), grads = summed(loss_and_gradient, (batch, weights_NR), parts)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    tokens = jnp.maximum(mask_NR.sum(), 1.0)
    metrics = {f"train/{name}": value / tokens for name, value in sums.items()}
    metrics |= {"train/loss": loss, "train/grad_norm": norm, "train/skipped": 1.0 - finite}
    with jax.named_scope("optimizer"):
        return state.apply_gradients(grads, optimizer, finite), metrics
