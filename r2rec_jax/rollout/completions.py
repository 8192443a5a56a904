"""Ranking by a policy: prompts in batches through the rollout engine, completions read and judged."""

from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.pipeline.prompt_source import Prompt, RankingPrompts, pad_prompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rollout.constrain import Rankings, check_budget, rankings
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.rollout.parsed_completion import Judged, judge
from r2rec_jax.rollout.queue import generate
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.errors import UserError


def complete(
    engine: Engine,
    variables: dict,
    prompts: list[Prompt],
    chat: Chat,
    config: ConfigDict,
    *,
    samples: int,
    seed: int,
    receive: Callable[[int, Rollout], None] | None = None,
) -> Rollout:
    """Samples `samples` completions of each prompt.

    `config` is the `prompt` section; `receive` gets (k, prompt k's completions) as soon as they have ended.
    """
    tokens_BP, length_B = pad_prompts(prompts, config.buckets)
    return engine(
        variables,
        tokens_BP,
        length_B,
        samples=samples,
        seed=seed,
        prompt_ids=ids(prompts),
        possible=_possible(engine, prompts, chat, config),
        receive=receive,
    )


def rank_users(
    engine: Engine,
    variables: dict,
    prompts: list[Prompt],
    chat: Chat,
    config: ConfigDict,
    *,
    seed: int,
    samples: int = 1,
) -> Iterator[tuple[int, list[Judged]]]:
    """(k, the judged completions of prompt k), in the order in which they end; arguments as for `complete`.

    Raises UserError where the model gives no numbers.
    """
    rows, possible = [prompt.tokens for prompt in prompts], _possible(engine, prompts, chat, config)
    ended = generate(
        engine, variables, rows, ids(prompts), config.buckets, seed=seed, samples=samples, possible=possible
    )
    for k, rollout in ended:
        check_numbers(rollout.logprobs, prompts[k])
        said = zip(rollout.tokens, rollout.length, rollout.truncated, strict=True)
        yield k, [judge(prompts[k], row[:n], bool(cut), chat, config) for row, n, cut in said]


def check_numbers(logprobs: np.ndarray, prompt: Prompt) -> None:
    """Raises UserError for log-probabilities that are not numbers: whoever ranks by them ranks by chance."""
    if np.isnan(logprobs).any():
        raise UserError(
            f"user {prompt.record.user}: the model's log-probabilities are not numbers, so its weights or "
            "its adapter's are broken: use an earlier checkpoint, or model.dtype=float32"
        )


def check_prompts(prompts: RankingPrompts, max_tokens: int | None) -> None:
    """Raises UserError where a user's candidates alone fit no bucket, or have more places or tokens than an
    answer may; `max_tokens` is that of a completion whose answer is constrained, else None."""
    c = prompts.config
    for k in range(len(prompts)):
        titles = prompts.shortest(k).titles
        if max_tokens is not None:
            check_budget(rankings(prompts.chat, [titles], answer=c.answer, places=c.places), max_tokens)


def ids(prompts: list[Prompt]) -> np.ndarray:
    """What a prompt's completions depend on besides seed and index: its user, int32 [B]."""
    return np.array([prompt.record.user for prompt in prompts], np.int32)


def _possible(engine: Engine, prompts: list[Prompt], chat: Chat, config: ConfigDict) -> Rankings | None:
    if not engine.sampling.constrained:
        return None
    titles = [prompt.titles for prompt in prompts]
    c = config
    return rankings(chat, titles, answer=c.answer, places=c.places, reasoning=c.reasoning)


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
