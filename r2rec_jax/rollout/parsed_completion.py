"""Completions parsed strictly: reasoning, ranking, and the rank of the held-out item."""

import dataclasses

import numpy as np

from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.answer_parser import ORDER, Ranking, count_statements, parse_ranking, rank_of
from r2rec_jax.prompts.chat import MARKERS, Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.runtime.plain_text import plain


@dataclasses.dataclass(frozen=True)
class ParsedCompletion:
    """One completion.

    truth_rank: rank of the held-out item in a valid answer, from 1; 0 for a miss and for an answer that
      breaks the required form. All metrics use this rank.
    lenient_rank: the same for whatever could be parsed, valid or not. The reward uses it, so that a policy
      that does not yet keep the form can learn to.
    statements: number of statements in the reasoning, without the answer.
    """

    prompt: Prompt
    reasoning: str
    answer: str | None
    ranking: Ranking
    truth_rank: int
    lenient_rank: int
    statements: int
    truncated: bool


def parse_completion(
    prompt: Prompt, tokens: np.ndarray, truncated: bool, chat: Chat, config: PromptConfig
) -> ParsedCompletion:
    """Parses one completion: `tokens` int32 [length], without padding."""
    tokens = tokens.tolist()
    # Without reasoning the prompt has closed the think block (pipeline/prompt_source.py).
    reasoning, answer = chat.split(tokens if config.reasoning else [chat.end_think, *tokens])
    ranking = parse_ranking(answer, prompt.titles, answer=config.answer, places=config.places)
    return _parsed(prompt, reasoning, answer, ranking, truncated)


def parse_reply(prompt: Prompt, text: str, truncated: bool, config: PromptConfig) -> ParsedCompletion:
    """Parses a server's reply: a think block is reasoning, and so are the lines before the answer."""
    thought, _, rest = text.rpartition(MARKERS["end_think"])
    thoughts, lines = ([plain(line) for line in part.splitlines()] for part in (thought, rest))
    starts = (k for k, line in enumerate(lines) if line.casefold().startswith(ORDER.casefold()))
    first = next(starts, len(lines))
    reasoning, answer = "\n".join(thoughts + lines[:first]).strip(), "\n".join(lines[first:])
    ranking = parse_ranking(answer, prompt.titles, answer=config.answer, places=config.places)
    return _parsed(prompt, reasoning, answer or None, ranking, truncated)


def completion_from_scores(
    prompt: Prompt, score_C: np.ndarray, config: PromptConfig, *, reasoning: str = "", truncated: bool = False
) -> ParsedCompletion:
    """All candidates ranked by score, the highest first; equal ones in the prompt's order."""
    order = np.argsort(-score_C, kind="stable").tolist()
    names = [str(k + 1) if config.answer == "numbers" else prompt.titles[k] for k in order]
    answer = f"{ORDER} {' > '.join(names[: config.places])}"
    return _parsed(prompt, reasoning, answer, Ranking(order, True), truncated)


def _parsed(
    prompt: Prompt, reasoning: str, answer: str | None, ranking: Ranking, truncated: bool
) -> ParsedCompletion:
    truth = int(np.flatnonzero(prompt.record.candidates == prompt.record.truth)[0])
    lenient = rank_of(ranking, truth)
    rank = lenient if ranking.valid else 0
    statements = count_statements(reasoning)
    return ParsedCompletion(prompt, reasoning, answer, ranking, rank, lenient, statements, truncated)
