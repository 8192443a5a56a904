"""What a completion says, read strictly: its reasoning, its ranking, and where the truth stands in it."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.pipeline.prompts import Prompt
from r2rec_jax.prompts.answer import Ranking, count_statements, parse_ranking, rank_of
from r2rec_jax.prompts.chat import Chat


@dataclasses.dataclass(frozen=True)
class Judged:
    """`truth_rank` counts from 1, 0 for a miss; `statements` counts reasoning before the answer only."""

    prompt: Prompt
    reasoning: str
    answer: str | None
    ranking: Ranking
    truth_rank: int
    statements: int
    truncated: bool


def judge(prompt: Prompt, tokens: np.ndarray, truncated: bool, chat: Chat, config: ConfigDict) -> Judged:
    """Reads one completion: `tokens` int32 [length], without padding; `config` is the `prompt` section."""
    said = tokens.tolist()
    # Without reasoning the prompt has closed the block for it (pipeline/prompts.py).
    reasoning, answer = chat.split(said if config.reasoning else [chat.end_think, *said])
    ranking = parse_ranking(answer, prompt.titles, answer=config.answer, places=config.places)
    truth = int(np.flatnonzero(prompt.record.candidates == prompt.record.truth)[0])
    return Judged(
        prompt,
        reasoning,
        answer,
        ranking,
        rank_of(ranking, truth),
        count_statements(reasoning),
        truncated,
    )
