"""What a completion says, read strictly: its reasoning, its ranking, and where the truth stands in it."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.answer_parser import ORDER, Ranking, count_statements, parse_ranking, rank_of
from r2rec_jax.prompts.chat import MARKERS, Chat
from r2rec_jax.runtime.plain_text import plain


@dataclasses.dataclass(frozen=True)
class ParsedCompletion:
    """One completion, read.

    truth_rank: of the truth in a valid answer, from 1; 0 for a miss, and for an answer that breaks the form
      asked for, whatever it names. All metrics are of this rank.
    lenient_rank: the same of whatever could be read, valid or not: what the reward pays, so that a policy
      that does not yet keep the form can learn to.
    statements: of the reasoning before the answer only.
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
    prompt: Prompt, tokens: np.ndarray, truncated: bool, chat: Chat, config: ConfigDict
) -> ParsedCompletion:
    """Reads one completion: `tokens` int32 [length], without padding; `config` is the `prompt` section."""
    said = tokens.tolist()
    # Without reasoning the prompt has closed the block for it (pipeline/prompt_source.py).
    reasoning, answer = chat.split(said if config.reasoning else [chat.end_think, *said])
    ranking = parse_ranking(answer, prompt.titles, answer=config.answer, places=config.places)
    return _judged(prompt, reasoning, answer, ranking, truncated)


def parse_reply(prompt: Prompt, text: str, truncated: bool, config: ConfigDict) -> ParsedCompletion:
    """Reads a server's reply: what stands before the line of the answer is reasoning, and so is a think
    block, whatever it holds."""
    thought, _, said = text.rpartition(MARKERS["end_think"])
    thoughts, lines = ([plain(line) for line in part.splitlines()] for part in (thought, said))
    starts = (k for k, line in enumerate(lines) if line.casefold().startswith(ORDER.casefold()))
    first = next(starts, len(lines))
    reasoning, answer = "\n".join(thoughts + lines[:first]).strip(), "\n".join(lines[first:])
    ranking = parse_ranking(answer, prompt.titles, answer=config.answer, places=config.places)
    return _judged(prompt, reasoning, answer or None, ranking, truncated)


def completion_from_scores(
    prompt: Prompt, score_C: np.ndarray, config: ConfigDict, *, reasoning: str = "", truncated: bool = False
) -> ParsedCompletion:
    """Candidates ranked by score, the highest first, all of them; equal ones in the prompt's order."""
    order = np.argsort(-score_C, kind="stable").tolist()
    names = [str(k + 1) if config.answer == "numbers" else prompt.titles[k] for k in order]
    answer = f"{ORDER} {' > '.join(names[: config.places])}"
    return _judged(prompt, reasoning, answer, Ranking(order, True), truncated)


def _judged(
    prompt: Prompt, reasoning: str, answer: str | None, ranking: Ranking, truncated: bool
) -> ParsedCompletion:
    truth = int(np.flatnonzero(prompt.record.candidates == prompt.record.truth)[0])
    lenient = rank_of(ranking, truth)
    rank = lenient if ranking.valid else 0
    statements = count_statements(reasoning)
    return ParsedCompletion(prompt, reasoning, answer, ranking, rank, lenient, statements, truncated)
