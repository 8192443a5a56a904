"""One round of experience: sample groups, pay them, and shape what the GRPO update needs."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.pipeline.prompt_source import Prompt, pad_prompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rollout.completions import complete, summary
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train.grpo import GRPOBatch
from r2rec_jax.train.objective import group_advantages
from r2rec_jax.train.scoring import Scored, Scorer, means

PERCENTILES = (10, 50, 90)  # of lengths, for the metrics


@dataclasses.dataclass(frozen=True)
class Experience:
    """A batch for the update, on the host; its completions, rows as in Rollout; metrics of both."""

    batch: GRPOBatch
    scored: list[Scored]
    metrics: dict[str, float]


def gather(
    engine: Engine,
    variables: dict,
    prompts: list[Prompt],
    chat: Chat,
    scorer: Scorer,
    config: ConfigDict,
    phases: Phases,
    *,
    seed: int,
) -> Experience:
    """Samples `config.grpo.group` completions of each prompt and computes their advantages.

    A group goes to `scorer` as soon as it has ended. A completion whose reward failed is masked, and no part
    of its group's comparison: that a function failed says nothing about what it was given.
    """
    G = config.grpo.group
    pending = {}

    def receive(b: int, group: Rollout) -> None:
        rows = zip(group.tokens, group.length, group.truncated, strict=True)
        pending[b] = [scorer.begin(prompts[b], row[:length], bool(cut)) for row, length, cut in rows]

    with phases("rollout"):
        rollout = complete(
            engine, variables, prompts, chat, config.prompt, samples=G, seed=seed, receive=receive
        )
    with phases("reward"):
        scored = scorer.collect([one for b in range(len(prompts)) for one in pending[b]])
        rewards = np.array([one.reward for one in scored], np.float32)
        advantage_BG, flat = group_advantages(rewards.reshape(-1, G), config.grpo.scale_by_std)
    tokens_BP, length_B = pad_prompts(prompts, config.prompt.buckets)
    R = rollout.tokens.shape[1]
    mask_NR = (np.arange(R) < rollout.length[:, None]).astype(np.float32)
    mask_NR[np.isnan(rewards)] = 0.0
    if config.grpo.mask_truncated:
        mask_NR[rollout.truncated] = 0.0
    mask_NR[rollout.forced] = 0.0
    batch = GRPOBatch(
        CompletionBatch(tokens_BP, length_B, rollout.tokens, mask_NR),
        advantage_BG.reshape(-1),
        rollout.logprobs,
    )
    metrics = {f"rollout/{name}": value for name, value in summary([one.judged for one in scored]).items()}
    paid = means(scored)
    metrics |= {"train/reward": paid.pop("reward")} | {f"reward/{name}": x for name, x in paid.items()}
    metrics |= {
        "reward/flat_groups": flat,
        "rollout/length": float(rollout.length.mean()),
        "rollout/length_max": float(rollout.length.max()),
        "rollout/tokens": float(rollout.length.sum()),
        "rollout/tokens_per_s": phases.rate("rollout", rollout.length.sum()),
        "rollout/utilisation": engine.utilisation,
    }
    shares = np.percentile(rollout.length, PERCENTILES)
    metrics |= {f"rollout/length_p{k}": float(x) for k, x in zip(PERCENTILES, shares, strict=True)}
    return Experience(batch, scored, metrics)
