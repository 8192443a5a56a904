"""This repository's own model as the teacher."""

import dataclasses

import numpy as np

from r2rec_jax.model.llama import Llama
from r2rec_jax.pipeline.prompt_source import open_turn
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rollout.completions import complete
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers.config import AnnotateConfig
from r2rec_jax.teachers.question import TASKS
from r2rec_jax.teachers.request import Ask, Receive, Reply

MULTIPLE = 256  # padded length of what is longer than every bucket, since a hint makes prompts longer


@dataclasses.dataclass(frozen=True, eq=False)
class _AskPrompt:
    """A question as `complete` takes it."""

    tokens: np.ndarray
    id: int


class LocalTeacher:
    """A model with its variables.

    With `config.hint` the model is told the answer and writes the whole trace after a closed think
    block. Without, it does what a policy does, reasons in the block and answers behind it.
    """

    def __init__(
        self,
        config: AnnotateConfig,
        chat: Chat,
        model: Llama,
        variables: dict,
        *,
        buckets: tuple[int, ...],
        seed: int,
    ):
        """`buckets` are padded prompt lengths in tokens; `seed` draws the replies."""
        self.config, self.chat, self.variables = config, chat, variables
        self.buckets, self.seed = buckets, seed
        c = config
        sampling = RolloutConfig(max_tokens=c.max_tokens, temperature=c.temperature, top_p=c.top_p)
        self.engine = Engine(model, chat.end, sampling, slots=c.local.batch_size)
        self.positions = model.config.max_position_embeddings
        self._check(max(buckets))

    def __call__(self, asks: list[Ask], receive: Receive) -> None:
        hint = self.config.hint
        prompts = [
            _AskPrompt(np.array(open_turn(self.chat, ask.text, not hint), np.int32), self._id(ask))
            for ask in asks
        ]
        longest = max(len(prompt.tokens) for prompt in prompts)
        self._check(longest)
        widths = (*self.buckets, -(-longest // MULTIPLE) * MULTIPLE)
        for k, rollout in complete(self.engine, self.variables, prompts, widths, samples=1, seed=self.seed):
            said = rollout.tokens[0, : rollout.length[0]].tolist()
            reasoning, answer = self.chat.split([self.chat.end_think, *said] if hint else said)
            text = "\n".join(filter(None, (reasoning, answer)))
            fault = "truncated" if rollout.truncated[0] else None
            receive(asks[k], Reply(text, fault, len(prompts[k].tokens), len(said)))

    def _check(self, prompt: int) -> None:
        """Raises UserError when a prompt of so many tokens, and a trace, are longer than the model reads."""
        most = self.config.max_tokens
        if prompt + most > self.positions:
            raise UserError(
                f"a prompt of {prompt} tokens and a trace of annotate.max_tokens={most} are more than "
                f"the model's {self.positions} positions (max_position_embeddings in its config.json): "
                "lower annotate.max_tokens or prompt.buckets"
            )

    def _id(self, ask: Ask) -> int:
        """Another for each user, task and attempt: what a reply depends on besides the seed."""
        question = ask.question.record.user * len(TASKS) + TASKS.index(ask.question.task)
        return question * (self.config.attempts + 1) + ask.attempt
