"""Yes/No examples against the log: who is asked about what, and what they are shown."""

import re

import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.data.rating_scale import NONE, Scale
from r2rec_jax.pipeline.tallrec import build_questions, tallrec_examples
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.prompts.wording import wording
from r2rec_jax.runtime.errors import UserError

COMPACT = wording("compact")

CONFIG = ConfigDict({"history": 4, "buckets": (400,)})


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Kai gave it what? Kai gave it a 5."], 300).save(str(folder / "tokenizer.json"))
    return Chat(folder)


def examples(dataset, chat, users, questions=3, seed=0) -> list[dict]:
    return tallrec_examples(dataset, users, COMPACT, chat, CONFIG, questions=questions, seed=seed)


def test_every_question_agrees_with_the_log_and_shows_only_what_was_before(dataset, chat):
    log, titles = dataset.interactions, dataset.catalog.title
    users = dataset.split.users["sft"]
    made, answers = examples(dataset, chat, users), set()
    assert len(made) == 3 * len(users)
    for k, example in enumerate(made):
        user = users[k // 3]
        rows = np.arange(log.offsets[user], dataset.split.cutoff[user])
        row_of = {titles[log.item[row]]: row for row in rows}
        text = chat.decode(example["prompt"].tolist())
        asked = row_of[re.search(r"\nKai gave (\w+),.* what", text)[1]]
        shown = {liked: re.search(rf"Kai is {how} of (.*)\.", text) for liked, how in WAYS.items()}
        shown = {liked: match[1].split(", ") if match else [] for liked, match in shown.items()}
        for liked, names in shown.items():
            assert all((log.rating[row_of[name]] > 3) == liked for name in names)
        told = sorted(row_of[name] for names in shown.values() for name in names)
        assert told == [row for row in rows if asked - 4 <= row < asked] and told
        said = chat.decode(example["response"].tolist())
        mark = "5" if log.rating[asked] > 3 else "2"
        assert said == f"Kai gave it a {mark}." + chat.tokenizer.id_to_token(chat.end)
        answers.add(said)
        assert example["mask"].all() and len(example["mask"]) == len(example["response"])
        assert not {titles[item] for item in dataset.split.candidates[user]} & set(re.findall(r"\w+", text))
    assert len(answers) == 2


WAYS = {True: "fond", False: "less fond"}


def test_an_example_is_drawn_from_seed_and_user_alone(dataset, chat):
    users = dataset.split.users["sft"][:5]
    forth, back = examples(dataset, chat, users), examples(dataset, chat, users[::-1])
    prompts = [example["prompt"].tolist() for example in forth]
    assert [back[3 * (4 - k // 3) + k % 3]["prompt"].tolist() for k in range(15)] == prompts
    assert [e["prompt"].tolist() for e in examples(dataset, chat, users, seed=1)] != prompts


def test_a_user_with_few_rows_is_asked_about_each_once(dataset, chat):
    user = dataset.split.users["sft"][:1]
    rows = dataset.history(int(user[0]))
    made = examples(dataset, chat, user, questions=99)
    assert len({e["prompt"].tobytes() for e in made}) == len(made) == rows.stop - rows.start - 1


def test_what_is_too_long_loses_its_oldest_history(dataset, chat):
    history, config = [(0, 5.0), (1, 2.0), (2, 4.0)], CONFIG.copy_and_resolve_references()
    whole = build_questions(history, [5, 6], dataset, COMPACT, chat, config)
    single = build_questions(history, [6], dataset, COMPACT, chat, config)
    assert whole.prefix == single.prefix and whole.questions[1] == single.questions[0] and whole.dropped == 0
    assert [*whole.prefix, *whole.questions[0]].count(chat.begin) == 1
    config.buckets = (len(whole.prefix) + max(map(len, whole.questions)) - 1,)
    shorter = build_questions(history, [5, 6], dataset, COMPACT, chat, config)
    assert shorter.dropped == 1 and shorter.questions == whole.questions
    assert shorter.prefix == build_questions(history[1:], [5, 6], dataset, COMPACT, chat, CONFIG).prefix
    config.buckets = (5,)
    with pytest.raises(UserError, match=r"needs \d+ tokens.*add a larger bucket"):
        build_questions(history, [5], dataset, COMPACT, chat, config)


def test_without_ratings_nobody_can_be_asked(dataset, chat):
    words = wording("products", Scale(NONE, 1, 1, 1))
    with pytest.raises(UserError, match="no ratings: leave it out"):
        build_questions([(1, 1.0)], [5], dataset, words, chat, CONFIG)
