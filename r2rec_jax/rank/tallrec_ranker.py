"""Ranking by Yes/No questions (TALLRec): candidates ordered by P(yes) / (P(yes) + P(no))."""

from collections.abc import Iterator, Set

import jax
import numpy as np

from r2rec_jax.model.llama import Llama
from r2rec_jax.pipeline.prompt_source import Prompt, RankingPrompts, closed_answer
from r2rec_jax.pipeline.tallrec import Questions, build_questions
from r2rec_jax.prompts.ranking_prompt import shown_titles
from r2rec_jax.prompts.tallrec_question import question_text
from r2rec_jax.rank.policy_ranker import blocks
from r2rec_jax.rollout.completions import check_numbers
from r2rec_jax.rollout.likelihood import continuation_logprobs
from r2rec_jax.rollout.parsed_completion import ParsedCompletion, completion_from_scores

FILLS = 4  # batches of a block


class TALLRecRanker:
    """Ranks users by one model: each history computed once, 20 questions after it, two answers to each."""

    def __init__(self, model: Llama, source: RankingPrompts, mesh: jax.sharding.Mesh, batch_size: int):
        """`source` tells who is asked, about what, with which `prompt` section; `batch_size`: users at a
        time, 2 C times as many rows."""
        self.model, self.mesh, self.batch_size = model, mesh, batch_size
        self.chat, self.config = source.chat, source.config
        self.answers = [closed_answer(self.chat, verdict) for verdict in source.wording.verdicts]
        asked = (questions(source, k) for k in range(len(source)))
        self.prompts, self.asked = zip(*asked, strict=True)

    def __call__(self, variables: dict, wanted: Set[int]) -> Iterator[tuple[int, int, ParsedCompletion]]:
        """(k, 0, ranking) of at least the users k in `wanted`, by blocks as PolicyRanker does.

        Raises UserError where the model gives no numbers.
        """
        for block in blocks(self.prompts, self.config.buckets, FILLS * self.batch_size):
            if wanted.isdisjoint(block):
                continue
            continuations = [
                [
                    np.array([*question, *said], np.int32)
                    for question in self.asked[k]
                    for said in self.answers
                ]
                for k in block
            ]
            scores = continuation_logprobs(
                self.model,
                variables,
                [self.prompts[k].tokens for k in block],
                continuations,
                buckets=self.config.buckets,
                batch_size=self.batch_size,
                counted=[[len(said) for _ in self.asked[k] for said in self.answers] for k in block],
                mesh=self.mesh,
            )
            for k, of_user in zip(block, scores, strict=True):
                check_numbers(of_user, self.prompts[k])
                no_C, yes_C = of_user.reshape(-1, 2).T
                yield k, 0, completion_from_scores(self.prompts[k], yes_C - no_C, self.config)


def questions(source: RankingPrompts, k: int) -> tuple[Prompt, list[list[int]]]:
    """User k's history as a Prompt, its text with all questions, and the tokens of each candidate's."""
    record, words, catalog = source.record(k), source.wording, source.dataset.catalog
    items = record.candidates.tolist()
    built: Questions = build_questions(
        record.history, items, source.dataset, words, source.chat, source.config
    )
    text = built.text + "\n".join(question_text(item, catalog, words) for item in items)
    titles = shown_titles(record, catalog, words)
    prompt = Prompt(record, text, np.array(built.prefix, np.int32), titles, dropped_likes=built.dropped)
    return prompt, built.questions
