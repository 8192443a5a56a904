"""The questions of a whole config, as launch.annotate asks them."""

from ml_collections import ConfigDict

from r2rec_jax.data.prepared import Dataset
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.teachers.question import Question, questions


def questions_of(dataset: Dataset, chat: Chat, config: ConfigDict) -> list[Question]:
    return questions(dataset, chat, config.prompt, config.annotate.tasks, seed=config.seed)
