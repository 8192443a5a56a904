"""The local teacher: a policy of this repository writes the traces."""

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
from r2rec_jax.teachers.request import Receive, Reply, Request

# A hint makes prompts longer; a prompt that exceeds every bucket is padded to a multiple of this.
MULTIPLE = 256


@dataclasses.dataclass(frozen=True, eq=False)
class _TeacherPrompt:
    """A request in the form that `rollout.completions.complete` takes."""

    tokens: np.ndarray
    id: int


class LocalTeacher:
    """Writes traces with a model and its variables.

    With `config.hint` the request contains the answer, and the model writes the whole trace after a closed
    think block. Without the hint it reasons inside the block and answers after it, as a policy does.
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
        """`buckets`: padded prompt lengths, tokens. `seed` of the sampled replies."""
        self.config, self.chat, self.variables = config, chat, variables
        self.buckets, self.seed = buckets, seed
        c = config
        sampling = RolloutConfig(max_tokens=c.max_tokens, temperature=c.temperature, top_p=c.top_p)
        self.engine = Engine(model, chat.end, sampling, slots=c.local.batch_size)
        self.positions = model.config.max_position_embeddings
        self._check(max(buckets))

    def __call__(self, requests: list[Request], receive: Receive) -> None:
        hint = self.config.hint
        prompts = [
            _TeacherPrompt(
                np.array(open_turn(self.chat, request.text, not hint), np.int32), self._id(request)
            )
            for request in requests
        ]
        longest = max(len(prompt.tokens) for prompt in prompts)
        self._check(longest)
        widths = (*self.buckets, -(-longest // MULTIPLE) * MULTIPLE)
        for k, rollout in complete(self.engine, self.variables, prompts, widths, samples=1, seed=self.seed):
            completion = rollout.tokens[0, : rollout.length[0]].tolist()
            reasoning, answer = self.chat.split([self.chat.end_think, *completion] if hint else completion)
            text = "\n".join(filter(None, (reasoning, answer)))
            fault = "truncated" if rollout.truncated[0] else None
            receive(requests[k], Reply(text, fault, len(prompts[k].tokens), len(completion)))

    def _check(self, prompt: int) -> None:
        """Raises UserError if `prompt` tokens and a trace together exceed the model's positions."""
        most = self.config.max_tokens
        if prompt + most > self.positions:
            raise UserError(
                f"a prompt of {prompt} tokens and a trace of annotate.max_tokens={most} are more than "
                f"the model's {self.positions} positions (max_position_embeddings in its config.json): "
                "lower annotate.max_tokens or prompt.buckets"
            )

    def _id(self, request: Request) -> int:
        """A distinct number for each user, task and attempt; a reply depends on it and on the seed."""
        question = request.question.record.user * len(TASKS) + TASKS.index(request.question.task)
        return question * (self.config.attempts + 1) + request.attempt
