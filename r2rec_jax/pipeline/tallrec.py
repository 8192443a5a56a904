"""TALLRec's Yes/No questions as tokens. The questions of a user share the tokens of the history."""

import dataclasses

import numpy as np
from tqdm import tqdm

from r2rec_jax.data.prepared import Dataset
from r2rec_jax.pipeline.prompt_source import closed_answer, open_turn
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import recent_ratings
from r2rec_jax.prompts.tallrec_question import history_text, question_text
from r2rec_jax.prompts.wording import Wording
from r2rec_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """The questions of one user.

    text: the history as text.
    prefix: token ids of the turn up to the history, shared by all questions.
    questions: for each item, the token ids of the rest of the turn and the opened answer.
    dropped: number of rated items that did not fit.
    """

    text: str
    prefix: list[int]
    questions: list[list[int]]
    dropped: int


def build_questions(
    history: list[tuple[int, float]],
    items: list[int],
    dataset: Dataset,
    words: Wording,
    chat: Chat,
    config: PromptConfig,
) -> Questions:
    """Builds questions about `items` for a user with this `history`. `config` is a `prompt` section.

    The oldest items of the history are dropped until the longest question fits max(config.buckets) tokens.

    Raises:
      UserError: the longest question is too long without history, or the data have no ratings.
    """
    if not words.liking:
        raise UserError(
            "TALLRec predicts whether a user likes an item, but the data have no ratings: leave it out"
        )
    catalog, budget = dataset.catalog, max(config.buckets)
    # Without the begin and user tokens, which are in the prefix.
    questions = [open_turn(chat, question_text(item, catalog, words), reasoning=False)[2:] for item in items]
    longest = max(len(tokens) for tokens in questions)
    for dropped in range(len(history) + 1):
        text = history_text(history[dropped:], catalog, words)
        prefix = chat.conversation([{"role": "user", "content": text}])
        if len(prefix) + longest <= budget:
            return Questions(text, prefix, questions, dropped)
    raise UserError(
        f"a question about one item needs {longest} tokens, more than prompt.buckets "
        f"{tuple(config.buckets)} allow: add a larger bucket"
    )


def tallrec_examples(
    dataset: Dataset,
    users: np.ndarray,
    words: Wording,
    chat: Chat,
    config: PromptConfig,
    *,
    questions: int,
    seed: int,
) -> list[dict[str, np.ndarray]]:
    """Makes {'prompt', 'response', 'mask'} examples from up to `questions` rows of each user's history.

    All response tokens have loss. Rows are drawn from (seed, user). The prompt of a row contains only the
    `config.history` rows before it. All rows are before the user's held-out item.

    Raises:
      AssertionError: an example contains a candidate of the user.
    """
    log, examples = dataset.interactions, []
    for user in tqdm(users.tolist(), desc="questions", unit="user", mininterval=1.0, delay=1.0):
        rows = dataset.history(user)
        choice = np.arange(rows.start + 1, rows.stop)  # the first row has no history
        rng = np.random.default_rng([seed, user])
        candidates = set(dataset.split.candidates[user].tolist())
        for row in rng.choice(choice, min(questions, len(choice)), replace=False).tolist():
            item, rating = int(log.item[row]), float(log.rating[row])
            history = recent_ratings(dataset, user, config.history, before=row)
            assert candidates.isdisjoint([item, *(seen for seen, _ in history)]), f"user {user}: a candidate"
            built = build_questions(history, [item], dataset, words, chat, config)
            response = closed_answer(chat, words.verdicts[words.is_like(rating)])
            examples.append(
                {
                    "prompt": np.array([*built.prefix, *built.questions[0]], np.int32),
                    "response": np.array(response, np.int32),
                    "mask": np.ones(len(response), np.float32),
                }
            )
    return examples
