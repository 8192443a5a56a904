"""Yes/No questions as tokens: a user's history, which the questions about 20 candidates share, and items."""

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
    """One user's: `known` begins the turn, each of `asked` ends it and opens the answer; `text` is `known`
    as people read it. `dropped`: rated items that did not fit."""

    text: str
    known: list[int]
    asked: list[list[int]]
    dropped: int


def ask(
    history: list[tuple[int, float]],
    items: list[int],
    dataset: Dataset,
    words: Wording,
    chat: Chat,
    config: PromptConfig,
) -> Questions:
    """Questions about `items` to a user of this `history`; `config` is a `prompt` section.

    What is longer than max(config.buckets) loses the oldest of the history.

    Raises:
      UserError: the longest question alone is too long, or the data have no ratings.
    """
    if not words.liking:
        raise UserError(
            "TALLRec asks whether a user will like an item, and the data have no ratings: leave it out"
        )
    catalog, budget = dataset.catalog, max(config.buckets)
    # Without the begin and user tokens: `known` has them.
    asked = [open_turn(chat, question_text(item, catalog, words), reasoning=False)[2:] for item in items]
    longest = max(len(tokens) for tokens in asked)
    for dropped in range(len(history) + 1):
        text = history_text(history[dropped:], catalog, words)
        known = chat.conversation([{"role": "user", "content": text}])
        if len(known) + longest <= budget:
            return Questions(text, known, asked, dropped)
    raise UserError(
        f"a question about one item needs {longest} tokens, more than prompt.buckets "
        f"{tuple(config.buckets)} hold: add a larger bucket"
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
    """{'prompt', 'response', 'mask'} of up to `questions` rows of each user's history, all of the response
    learnt.

    Rows are drawn from (seed, user). A row is asked about after the `config.history` rows before it, so
    nothing is told that comes after it. All are before the user's truth.

    Raises:
      AssertionError: a candidate of the user is shown or asked about.
    """
    log, examples = dataset.interactions, []
    for user in tqdm(users.tolist(), desc="questions", unit="user", mininterval=1.0, delay=1.0):
        rows = dataset.history(user)
        choice = np.arange(rows.start + 1, rows.stop)  # the first has nothing before it
        rng = np.random.default_rng([seed, user])
        candidates = set(dataset.split.candidates[user].tolist())
        for row in rng.choice(choice, min(questions, len(choice)), replace=False).tolist():
            item, rating = int(log.item[row]), float(log.rating[row])
            history = recent_ratings(dataset, user, config.history, before=row)
            assert candidates.isdisjoint([item, *(seen for seen, _ in history)]), f"user {user}: a candidate"
            said = ask(history, [item], dataset, words, chat, config)
            response = closed_answer(chat, words.verdicts[words.is_like(rating)])
            examples.append(
                {
                    "prompt": np.array([*said.known, *said.asked[0]], np.int32),
                    "response": np.array(response, np.int32),
                    "mask": np.ones(len(response), np.float32),
                }
            )
    return examples
