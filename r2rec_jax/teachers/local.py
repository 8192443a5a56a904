"""This repository's own model as the teacher."""

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.model.llama import Llama
from r2rec_jax.pipeline.batches import pad
from r2rec_jax.pipeline.prompts import open_turn
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rollout.engine import Engine, SamplingConfig
from r2rec_jax.teachers.ask import Ask, Receive, Reply
from r2rec_jax.teachers.question import TASKS

MULTIPLE = 256  # padded length of what is longer than every bucket, since a hint makes prompts longer


class LocalTeacher:
    """A model with its variables; `config` is a whole one.

    With `annotate.hint` the model is told the answer and writes the whole trace after a closed think
    block. Without, it does what a policy does, reasons in the block and answers behind it.
    """

    def __init__(self, config: ConfigDict, chat: Chat, model: Llama, variables: dict):
        self.config, self.chat, self.variables = config, chat, variables
        c = config.annotate
        sampling = SamplingConfig(c.max_tokens, c.temperature, c.top_p, c.local.chunk)
        self.engine = Engine(model, chat.end, sampling)

    def __call__(self, asks: list[Ask], receive: Receive) -> None:
        size = self.config.annotate.local.batch_size
        for start in range(0, len(asks), size):
            batch = asks[start : start + size]
            for ask, reply in zip(batch, self._replies(batch, size), strict=True):
                receive(ask, reply)

    def _replies(self, batch: list[Ask], size: int) -> list[Reply]:
        hint = self.config.annotate.hint
        rows = [np.array(open_turn(self.chat, ask.text, not hint), np.int32) for ask in batch]
        filled = rows + [rows[0]] * (size - len(rows))  # so that one program serves all
        longest = max(len(row) for row in rows)
        widths = (*self.config.prompt.buckets, -(-longest // MULTIPLE) * MULTIPLE)
        ids = [ask.question.record.user * len(TASKS) + TASKS.index(ask.question.task) for ask in batch]
        rollout = self.engine(
            self.variables,
            pad(filled, widths),
            np.array([len(row) for row in filled], np.int32),
            samples=1,
            seed=self.config.seed * 1_000_003 + max(ask.attempt for ask in batch),
            prompt_ids=np.array(ids + [ids[0]] * (size - len(ids)), np.int32),
        )
        replies = []
        for row, tokens, length, truncated in zip(
            rows, rollout.tokens, rollout.length, rollout.truncated, strict=False
        ):
            said = tokens[:length].tolist()
            reasoning, answer = self.chat.split([self.chat.end_think, *said] if hint else said)
            fault = "truncated" if truncated else None
            replies.append(Reply("\n".join(filter(None, (reasoning, answer))), fault, len(row), int(length)))
        return replies
