"""Ranking by a policy: prompts in batches through the rollout engine, completions read and judged."""

from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.evaluate.judge import Judged, judge
from r2rec_jax.pipeline.prompts import Prompt, RankingPrompts, pad_prompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rollout.engine import Engine, Rollout


def complete(
    engine: Engine,
    variables: dict,
    prompts: list[Prompt],
    chat: Chat,
    config: ConfigDict,
    *,
    samples: int,
    seed: int,
) -> tuple[Rollout, list[Judged]]:
    """Samples `samples` completions of each prompt and judges them, rows as in Rollout.

    `config` is the `prompt` section.
    """
    tokens_BP, length_B = pad_prompts(prompts, config.buckets)
    ids = np.array([prompt.record.user for prompt in prompts], np.int32)
    rollout = engine(variables, tokens_BP, length_B, samples=samples, seed=seed, prompt_ids=ids)
    judged = [
        judge(prompts[row // samples], tokens[:length], bool(truncated), chat, config)
        for row, (tokens, length, truncated) in enumerate(
            zip(rollout.tokens, rollout.length, rollout.truncated, strict=True)
        )
    ]
    return rollout, judged


def rank_users(
    engine: Engine, variables: dict, prompts: RankingPrompts, *, batch_size: int, seed: int
) -> Iterator[Judged]:
    """One completion for every user of `prompts`, in order.

    The last batch is filled up with its first prompt, so that one program serves all.
    """
    for start in range(0, len(prompts), batch_size):
        batch = [prompts[k] for k in range(start, min(start + batch_size, len(prompts)))]
        filled = batch + [batch[0]] * (batch_size - len(batch))
        _, judged = complete(engine, variables, filled, prompts.chat, prompts.config, samples=1, seed=seed)
        yield from judged[: len(batch)]


def summary(judged: list[Judged]) -> dict[str, float]:
    """Rates over all users: valid and truncated answers, and the mean number of statements, and of
    chains and likes that their prompts had no room for."""
    return {
        "valid_rate": float(np.mean([j.ranking.valid for j in judged])),
        "truncation_rate": float(np.mean([j.truncated for j in judged])),
        "statements": float(np.mean([j.statements for j in judged])),
        "dropped_chains": float(np.mean([j.prompt.dropped_chains for j in judged])),
        "dropped_likes": float(np.mean([j.prompt.dropped_likes for j in judged])),
    }
