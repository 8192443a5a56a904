"""A GRPO step from top to bottom, host and device: sample, reward, advantages, batch, update.

`GRPOStep.__call__` is the step. `grpo_update` is its program on the device, which `compile_update` compiles
for training, planning and benchmarks alike. Letters in array names: model/architecture.py. What they call:

    rollout/completions.py, rollout/engine.py  prompts -> completions: prefill, slots, decode
    rollout/parsed_completion.py               completion -> reasoning, ranking, rank of the held-out item
    train/reward_runner.py, train/rewards.py   completions -> rewards, in worker processes
    train/objective.py                         group-normalised advantages, clipping, KL
    model/completion.py, model/llama.py        log-probabilities of a group over its shared prompt
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.flops import Mfu
from r2rec_jax.model.llama import Llama
from r2rec_jax.model.policy import Policy
from r2rec_jax.pipeline.prompt_source import Prompt, pad_prompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rollout.completions import allowed_rankings, complete, completion_rates
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import to_devices
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train.compile import jit_step
from r2rec_jax.train.config import GRPOConfig
from r2rec_jax.train.micro_batches import mapped, summed
from r2rec_jax.train.objective import group_advantages, policy_loss, token_weights
from r2rec_jax.train.reward_runner import RewardedCompletion, RewardRunner, reward_means
from r2rec_jax.train.state import TrainState

PERCENTILES = (10, 50, 90)  # of completion lengths, for the metrics


@flax.struct.dataclass
class GRPOBatch:
    """B groups of G completions, N = B * G rows, and what the update needs besides.

    advantage: float32 [N]. sampler_logprobs: float32 [N, R]. old_logprobs: float32 [N, R] of the policy
    that sampled, None with one update a rollout: then the current ones take their place.
    """

    completions: CompletionBatch
    advantage: jax.Array
    sampler_logprobs: jax.Array
    old_logprobs: jax.Array | None = None


@dataclasses.dataclass(kw_only=True)
class GRPOStep:
    """One step of the training loop: `state, metrics, batch = step(state, prompts, number)`.

    `update_frozen` is the argument `frozen` of `grpo_update`. `update` comes from `compile_update` and
    `old_logprobs` from `compile_logprobs`. `record(number, completions)` gets the step's first group while
    the device computes the update.
    """

    policy: Policy
    update_frozen: dict
    engine: Engine
    rewards: RewardRunner
    update: Callable
    old_logprobs: Callable
    chat: Chat
    prompt: PromptConfig
    grpo: GRPOConfig
    mesh: Mesh
    mfu: Mfu
    phases: Phases
    record: Callable[[int, list[RewardedCompletion]], None]
    seed: int

    def __call__(self, state: TrainState, prompts: list[Prompt], number: int):
        # Sample.
        variables = {**self.policy.frozen, **state.trainable}
        with self.phases("rollout"):
            rollout, pending = self.sample(variables, prompts, self.seed * 1_000_003 + number)
        # Reward, and advantages within each group.
        with self.phases("reward"):
            rewarded = self.rewards.collect(pending)
            if all(one.fault for one in rewarded):
                raise UserError(
                    f"every reward of step {number} failed, e.g. {rewarded[0].fault}: fix reward.extra"
                )
            reward_BG = np.array([one.reward for one in rewarded], np.float32).reshape(-1, self.grpo.group)
            advantage_BG, zero_variance = group_advantages(reward_BG, self.grpo.scale_by_std)
        # Batch.
        batch = to_devices(self.make_batch(prompts, rollout, reward_BG, advantage_BG), self.mesh)
        # Update.
        with self.phases("update"):
            if self.grpo.updates_per_rollout > 1:
                batch = batch.replace(old_logprobs=self.old_logprobs(variables, batch.completions))
            skipped = 0.0
            for _ in range(self.grpo.updates_per_rollout):
                state, metrics = self.update(state, self.update_frozen, batch)
                skipped += metrics["train/skipped_count"]
            self.record(number, rewarded[: self.grpo.group])
            # Waits, so that each phase's seconds are its own. The iterator's threads prepare the next prompts
            # meanwhile; the device idles for a few milliseconds.
            jax.block_until_ready(metrics)
        metrics |= self.metrics(rollout, rewarded, batch)
        metrics |= {"train/skipped_count": skipped, "reward/zero_variance_fraction": zero_variance}
        return state, metrics, batch

    def sample(self, variables: dict, prompts: list[Prompt], seed: int) -> tuple[Rollout, list[Callable]]:
        """G completions of each prompt, and for each a function that waits for its reward. A group goes to
        the reward workers as soon as its last completion has ended."""
        groups, pending = {}, {}
        allowed = allowed_rankings(self.engine, prompts, self.chat, self.prompt)
        how = {"samples": self.grpo.group, "seed": seed, "allowed": allowed, "one_bucket": True}
        for b, group in complete(self.engine, variables, prompts, self.prompt.buckets, **how):
            rows = zip(group.tokens, group.length, group.truncated, strict=True)
            pending[b] = [self.rewards.submit(prompts[b], row[:n], bool(cut)) for row, n, cut in rows]
            groups[b] = group
        return Rollout.of_groups(groups.items()), [one for b in range(len(prompts)) for one in pending[b]]

    def make_batch(
        self, prompts: list[Prompt], rollout: Rollout, reward_BG: np.ndarray, advantage_BG: np.ndarray
    ) -> GRPOBatch:
        """The update's batch, on the host. Its mask leaves out padding, forced tokens (the only ones allowed
        by constrained decoding), and completions whose reward failed; with `grpo.mask_truncated` also those
        that reached max_tokens."""
        tokens_BP, length_B = pad_prompts(prompts, self.prompt.buckets)
        R = rollout.tokens.shape[1]
        mask_NR = (np.arange(R) < rollout.length[:, None]).astype(np.float32)
        mask_NR[np.isnan(reward_BG.reshape(-1))] = 0.0
        if self.grpo.mask_truncated:
            mask_NR[rollout.truncated] = 0.0
        mask_NR[rollout.forced] = 0.0
        completions = CompletionBatch(tokens_BP, length_B, rollout.tokens, mask_NR)
        return GRPOBatch(completions, advantage_BG.reshape(-1), rollout.logprobs)

    def metrics(
        self, rollout: Rollout, rewarded: list[RewardedCompletion], batch: GRPOBatch
    ) -> dict[str, float]:
        """The step's metrics from the host; docs/reference.md explains each."""
        rates = completion_rates([one.completion for one in rewarded])
        means = reward_means(rewarded)
        tokens, updates = float(rollout.length.sum()), self.grpo.updates_per_rollout
        percentiles = np.percentile(rollout.length, PERCENTILES)
        return {
            "train/reward": means.pop("reward"),
            **{f"reward/{name}": value for name, value in means.items()},
            **{f"rollout/{name}": value for name, value in rates.items()},
            "rollout/length_mean": float(rollout.length.mean()),
            **{f"rollout/length_p{k}": float(x) for k, x in zip(PERCENTILES, percentiles, strict=True)},
            "rollout/length_max": float(rollout.length.max()),
            "rollout/token_count": tokens,
            "rollout/tokens_per_s": self.phases.rate("rollout", tokens),
            "rollout/slot_utilisation": self.engine.utilisation,
            "update/tokens_per_s": self.phases.rate("update", updates * tokens),
            "update/mfu": self.phases.rate("update", updates * self.mfu.seconds_at_peak(batch.completions)),
        }


def grpo_update(
    model: Llama,
    optimizer: optax.GradientTransformation,
    config: GRPOConfig,
    temperature: float,
    state: TrainState,
    frozen: dict,
    batch: GRPOBatch,
    parts: int = 1,
):
    """One update of the policy; pure, on the device.

    `frozen` is {"base": the variables that do not train, "reference": the frozen SFT policy's trainable
    ones}. The batch is taken in `parts` micro-batches, whose sum is exactly the gradient of the whole. An
    update that is not finite is skipped.

    Returns (state, metrics of float32 scalars).
    """
    mask_NR = batch.completions.response_mask
    weights_NR = token_weights(mask_NR, config.aggregation)

    def logprobs_of(trainable, completions):
        variables = {**frozen["base"], **trainable}
        return completion_logprobs(model, variables, completions, temperature=temperature)

    def loss_and_gradient(part, _):
        batch, weights_NR = part
        mask_NR, sampler_NR = batch.completions.response_mask, batch.sampler_logprobs
        reference_NR = None
        if config.beta:
            with jax.named_scope("reference"):
                reference_NR = jax.lax.stop_gradient(logprobs_of(frozen["reference"], batch.completions)[0])

        def loss_of(trainable):
            logprobs_NR, entropy_NR = logprobs_of(trainable, batch.completions)
            current_NR = jax.lax.stop_gradient(logprobs_NR)
            old_NR = current_NR if batch.old_logprobs is None else batch.old_logprobs
            rows = logprobs_NR, old_NR, reference_NR, sampler_NR
            loss, sums = policy_loss(*rows, batch.advantage, mask_NR, weights_NR, config)
            sums["entropy"] = jnp.sum(entropy_NR * mask_NR)
            sums["sampler_logprob_gap"] = jnp.sum(jnp.abs(current_NR - sampler_NR) * mask_NR)
            return loss, sums

        with jax.named_scope("loss_and_gradient"):
            return jax.value_and_grad(loss_of, has_aux=True)(state.trainable)

    (loss, sums), grads = summed(loss_and_gradient, (batch, weights_NR), parts)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    tokens = jnp.maximum(mask_NR.sum(), 1.0)
    metrics = {f"train/{name}": value / tokens for name, value in sums.items()}
    metrics |= {"train/loss": loss, "train/grad_norm": norm, "train/skipped_count": 1.0 - finite}
    with jax.named_scope("optimizer"):
        return state.apply_gradients(grads, optimizer, finite), metrics


def compile_update(
    model: Llama,
    optimizer: optax.GradientTransformation,
    config: GRPOConfig,
    temperature: float,
    state: TrainState,
    frozen: dict,
    mesh: Mesh,
    parts: int = 1,
) -> Callable:
    """`grpo_update` as `update(state, frozen, batch)`, compiled as `jit_step` says."""

    def update(state, frozen, batch):
        return grpo_update(model, optimizer, config, temperature, state, frozen, batch, parts)

    return jit_step(update, state, frozen, mesh)


def compile_logprobs(model: Llama, temperature: float, parts: int) -> Callable:
    """`logprobs(variables, completions)`, float32 [N, R], in `parts` micro-batches: for a rollout with more
    than one update, the old log-probabilities."""

    def logprobs(variables, part):
        return completion_logprobs(model, variables, part, temperature=temperature)[0]

    return jax.jit(lambda variables, batch: mapped(functools.partial(logprobs, variables), batch, parts))
