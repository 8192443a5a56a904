"""One round of experience: sample groups, pay them, and shape what the GRPO update needs."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.evaluate.judge import Judged
from r2rec_jax.evaluate.policy import complete, summary
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.pipeline.prompts import Prompt, pad_prompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train.grpo import GRPOBatch
from r2rec_jax.train.objective import group_advantages
from r2rec_jax.train.rewards import reward, total


@dataclasses.dataclass(frozen=True)
class Experience:
    """A batch for the update, on the host; its completions, rows as in Rollout; metrics of both."""

    batch: GRPOBatch
    judged: list[Judged]
    rewards: np.ndarray
    metrics: dict[str, float]


def gather(
    engine: Engine,
    variables: dict,
    prompts: list[Prompt],
    chat: Chat,
    config: ConfigDict,
    phases: Phases,
    *,
    seed: int,
) -> Experience:
    """Samples `config.grpo.group` completions of each prompt and computes their advantages."""
    G = config.grpo.group
    with phases("rollout"):
        rollout, judged = complete(engine, variables, prompts, chat, config.prompt, samples=G, seed=seed)
    with phases("reward"):
        parts = [reward(one, config.reward) for one in judged]
        rewards = np.array([total(part, config.reward) for part in parts], np.float32)
        advantage_BG, flat = group_advantages(rewards.reshape(-1, G), config.grpo.scale_by_std)
    tokens_BP, length_B = pad_prompts(prompts, config.prompt.buckets)
    R = rollout.tokens.shape[1]
    mask_NR = (np.arange(R) < rollout.length[:, None]).astype(np.float32)
    if config.grpo.mask_truncated:
        mask_NR[rollout.truncated] = 0.0
    mask_NR[rollout.forced] = 0.0
    batch = GRPOBatch(
        CompletionBatch(tokens_BP, length_B, rollout.tokens, mask_NR),
        advantage_BG.reshape(-1),
        rollout.logprobs,
    )
    metrics = {f"reward/{name}": float(np.mean([part[name] for part in parts])) for name in parts[0]}
    metrics |= {f"rollout/{name}": value for name, value in summary(judged).items()}
    metrics |= {
        "train/reward": float(rewards.mean()),
        "reward/flat_groups": flat,
        "rollout/length": float(rollout.length.mean()),
        "rollout/tokens": float(rollout.length.sum()),
        "rollout/utilisation": engine.utilisation,
    }
    return Experience(batch, judged, rewards, metrics)
