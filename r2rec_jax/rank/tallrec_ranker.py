"""Ranks by Yes/No questions (TALLRec): candidates are ordered by P(yes) / (P(yes) + P(no))."""

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

FILLS = 4  # batches per block


class TALLRecRanker:
    """Ranks users by one model. A history is prefilled once and shared by all questions and both answers."""

    def __init__(self, model: Llama, source: RankingPrompts, mesh: jax.sharding.Mesh, batch_size: int):
        """source: the users, their candidates and the `prompt` section. batch_size: users at a time; each
        takes 2 C rows."""
        self.model, self.mesh, self.batch_size = model, mesh, batch_size
        self.chat, self.config = source.chat, source.config
        self.answers = [closed_answer(self.chat, verdict) for verdict in source.wording.verdicts]
        pairs = (questions(source, k) for k in range(len(source)))
        self.prompts, self.questions = zip(*pairs, strict=True)

    def __call__(self, variables: dict, wanted: Set[int]) -> Iterator[tuple[int, int, ParsedCompletion]]:
        """Yields (k, 0, ranking) for at least the users k in `wanted`, in blocks as in PolicyRanker.

        Raises UserError if the model's outputs are not finite.
        """
        for block in blocks(self.prompts, self.config.buckets, FILLS * self.batch_size):
            if wanted.isdisjoint(block):
                continue
            continuations = [
                [
                    np.array([*question, *answer], np.int32)
                    for question in self.questions[k]
                    for answer in self.answers
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
                counted=[[len(answer) for _ in self.questions[k] for answer in self.answers] for k in block],
                mesh=self.mesh,
            )
            for k, of_user in zip(block, scores, strict=True):
                check_numbers(of_user, self.prompts[k])
                no_C, yes_C = of_user.reshape(-1, 2).T
                yield k, 0, completion_from_scores(self.prompts[k], yes_C - no_C, self.config)


def questions(source: RankingPrompts, k: int) -> tuple[Prompt, list[list[int]]]:
    """(Prompt, questions) of user k.

    The Prompt's tokens are the history; its text also has all questions. questions: tokens per candidate.
    """
    record, words, catalog = source.record(k), source.wording, source.dataset.catalog
    items = record.candidates.tolist()
    built: Questions = build_questions(
        record.history, items, source.dataset, words, source.chat, source.config
    )
    text = built.text + "\n".join(question_text(item, catalog, words) for item in items)
    titles = shown_titles(record, catalog, words)
    prompt = Prompt(record, text, np.array(built.prefix, np.int32), titles, dropped_likes=built.dropped)
    return prompt, built.questions
