"""A teacher's question: one task of one SFT user, with all that the validator needs."""

import dataclasses

import numpy as np
from tqdm import tqdm

from r2rec_jax.chains.chain import Chain
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.rating_scale import STARS
from r2rec_jax.pipeline.prompt_source import Prompt, RankingPrompts, fit, open_turn
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.prompts.rating_prompt import rating_prompt
from r2rec_jax.prompts.wording import wording_of
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers.config import TASKS


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """One task of one user. `prompt` is the text that the policy will see in training.

    A rating question asks about the last rating of `chain`. A ranking question has chain None; its trace may
    use every chain of the record.
    """

    task: str
    prompt: str
    record: RankingRecord
    chain: Chain | None
    dropped_chains: int
    dropped_likes: int

    @classmethod
    def of(cls, prompt: Prompt) -> "Question":
        """The ranking question of a prompt."""
        return cls("ranking", prompt.text, prompt.record, None, prompt.dropped_chains, prompt.dropped_likes)

    @property
    def key(self) -> tuple[int, str]:
        return self.record.user, self.task

    @property
    def chains(self) -> list[Chain]:
        """The chains that the prompt shows."""
        return self.record.chains if self.chain is None else [self.chain]


def questions(
    dataset: Dataset,
    chat: Chat,
    config: PromptConfig,
    tasks: tuple[str, ...],
    *,
    seed: int,
    before_target_time: bool = False,
) -> list[Question]:
    """The questions of `tasks` for each SFT user; a user without chains has no rating question.

    `seed` of the sampled chains. With `before_target_time` chains contain only ratings from before the
    held-out item's time.

    Raises:
      UserError: an unknown task, or a prompt that fits no bucket.
    """
    if not tasks or not set(tasks) <= set(TASKS):
        raise UserError(f"annotate.tasks {tasks!r}: use one or more of {', '.join(TASKS)}")
    users = dataset.split.users["sft"]
    prompts = RankingPrompts(dataset, users, chat, config, seed, before_target_time=before_target_time)
    result, words = [], wording_of(config.wording, dataset)
    if "rating" in tasks and words.scale.kind != STARS:
        raise UserError(
            "annotate.tasks has 'rating' but the data have no star ratings: use "
            "--config.annotate.tasks=\"('ranking',)\""
        )
    for k in tqdm(range(len(prompts)), desc="questions", unit="user", mininterval=1.0, delay=1.0):
        record = prompts.record(k)
        if "ranking" in tasks:
            result.append(Question.of(fit(record, dataset.catalog, words, chat, config)))
        if "rating" in tasks and record.chains:
            rng = np.random.default_rng([seed, record.user, 1])
            chain = record.chains[rng.integers(len(record.chains))]
            text = rating_prompt(
                chain, dataset.catalog, record.demographics, words, reasoning=config.reasoning
            )
            length = len(open_turn(chat, text, config.reasoning))
            if length > max(config.buckets):
                raise UserError(
                    f"the rating question of user {record.user} needs {length} tokens, more than "
                    f"the largest of prompt.buckets {tuple(config.buckets)}: add a larger bucket"
                )
            result.append(Question("rating", text, record, chain, 0, 0))
    return result
