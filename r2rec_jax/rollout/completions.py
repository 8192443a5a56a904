"""The one way from prompts to completions: training, validation, evaluation and the local teacher use it."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import jax
import numpy as np

from r2rec_jax.pipeline.batches import pad
from r2rec_jax.pipeline.prompt_source import Prompt, RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rollout.constrain import Rankings, check_budget, rankings
from r2rec_jax.rollout.engine import Engine, Prompts
from r2rec_jax.rollout.parsed_completion import ParsedCompletion, parse_completion
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.errors import UserError


class TokenPrompt(Protocol):
    """tokens: int32 [length]. id: what the prompt's completions depend on besides seed and index."""

    tokens: np.ndarray
    id: int


def complete(
    engine: Engine,
    variables: dict,
    prompts: Sequence[TokenPrompt],
    buckets: tuple[int, ...],
    *,
    samples: int,
    seed: int,
    allowed: Rankings | None = None,
    one_bucket: bool = False,
) -> Iterator[tuple[int, Rollout]]:
    """Samples `samples` completions of each prompt: yields (k, the rows of prompt k) as soon as they end.

    Args:
      buckets: padded lengths; see `pad`. Each prompt decodes with those of its own bucket, or all with the
        longest if `one_bucket`: what an update takes as one batch is then also one rollout.
      allowed: the answers that each prompt allows, from `allowed_rankings`; None leaves them free.
    """
    lengths = np.array([len(prompt.tokens) for prompt in prompts], np.int32)
    bucket_of = np.searchsorted(sorted(buckets), lengths)
    if one_bucket:
        bucket_of[:] = bucket_of.max()
    for bucket in np.unique(bucket_of):
        chosen = np.flatnonzero(bucket_of == bucket)
        batch = Prompts(
            pad([prompts[k].tokens for k in chosen], buckets),
            lengths[chosen],
            np.array([prompts[k].id for k in chosen], np.int32),
            jax.tree.map(lambda x, chosen=chosen: x[chosen], allowed),
        )
        for place, group in engine(variables, batch, samples=samples, seed=seed):
            yield int(chosen[place]), group


def complete_and_parse(
    engine: Engine,
    variables: dict,
    prompts: list[Prompt],
    chat: Chat,
    config: PromptConfig,
    *,
    seed: int,
    samples: int = 1,
) -> Iterator[tuple[int, list[ParsedCompletion]]]:
    """(k, the parsed completions of prompt k), as soon as they end.

    Raises UserError where the model's log-probabilities are not numbers.
    """
    allowed = allowed_rankings(engine, prompts, chat, config)
    ended = complete(engine, variables, prompts, config.buckets, samples=samples, seed=seed, allowed=allowed)
    for k, rollout in ended:
        check_numbers(rollout.logprobs, prompts[k])
        rows = zip(rollout.tokens, rollout.length, rollout.truncated, strict=True)
        yield k, [parse_completion(prompts[k], row[:n], bool(cut), chat, config) for row, n, cut in rows]


def allowed_rankings(
    engine: Engine, prompts: list[Prompt], chat: Chat, config: PromptConfig
) -> Rankings | None:
    """The answers that each prompt allows, for an engine whose answers are constrained, else None."""
    if not engine.sampling.constrained:
        return None
    titles = [prompt.titles for prompt in prompts]
    return rankings(chat, titles, answer=config.answer, places=config.places, reasoning=config.reasoning)


def check_numbers(logprobs: np.ndarray, prompt: Prompt) -> None:
    """Raises UserError for log-probabilities that are not numbers."""
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


def completion_rates(completions: list[ParsedCompletion]) -> dict[str, float]:
    """Rates over all completions: valid and truncated answers, and the mean number of statements, and of
    chains and likes that their prompts had no room for."""
    return {
        "valid_rate": float(np.mean([one.ranking.valid for one in completions])),
        "truncation_rate": float(np.mean([one.truncated for one in completions])),
        "statements": float(np.mean([one.statements for one in completions])),
        "dropped_chains": float(np.mean([one.prompt.dropped_chains for one in completions])),
        "dropped_likes": float(np.mean([one.prompt.dropped_likes for one in completions])),
    }
