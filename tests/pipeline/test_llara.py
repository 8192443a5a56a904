"""LLaRA's examples against the log, and how they grow from words to words and items."""

import pickle

import numpy as np
import pytest

from r2rec_jax.pipeline.llara import LLaRAExamples
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.runtime.errors import UserError
from tests.pipeline.test_prompt_source import CONFIG

FIRST, ROWS = 5000, 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Kai gave it a 4, so it fits."], 300).save(str(folder / "tokenizer.json"))
    return folder


def source(dataset, chat, seed=0, **changes) -> RankingPrompts:
    config = CONFIG.copy_and_resolve_references()
    config.update({"likes": 3, "chains": 0, "places": 1, "reasoning": False, "item_tokens": True} | changes)
    return RankingPrompts(dataset, dataset.split.users["sft"], chat, config, seed)


@pytest.fixture(scope="module")
def examples(dataset, folder) -> LLaRAExamples:
    return LLaRAExamples(source(dataset, Chat(folder, first_item=FIRST)), ROWS)


def test_every_title_is_followed_by_its_own_token(dataset, folder, examples):
    chat = Chat(folder)
    for k, user in enumerate(dataset.split.users["sft"]):
        prompt = examples.prompts[k]
        tokens = prompt.tokens.tolist()
        told = [token - FIRST for token in tokens if token >= FIRST]
        likes = dataset.recent_likes(user, 3).tolist()
        assert told == likes + dataset.split.candidates[user].tolist()
        for item in told:
            before = chat.text(tokens[: tokens.index(FIRST + item)])
            assert before.endswith(" " + dataset.catalog.title[item])
        # Without them it is the prompt in words, which is also what people read.
        words = source(dataset, chat, item_tokens=False)[k]
        assert prompt.text == words.text and "\x1f" not in prompt.text
        assert chat.text([t for t in tokens if t < FIRST]) == chat.text(words.tokens.tolist())


def test_the_answer_is_the_truth_of_a_user_of_the_epoch(dataset, folder, examples):
    chat, users = Chat(folder), dataset.split.users["sft"]
    for epoch in range(2):
        named = []
        for place in range(len(users)):
            example = examples[epoch * len(users) + place]
            text, said = (chat.text(example[name].tolist()) for name in ("prompt", "response"))
            title = said.removeprefix("\n\nOrder: ").removesuffix(chat.text([chat.end]))
            user = next(u for u in users if dataset.catalog.title[dataset.split.truth[u]] == title)
            assert title in text.split("Candidates: ")[1]
            named.append(title)
            assert example["mask"].all() and len(example["mask"]) == len(example["response"])
            assert user in users
        truths = [dataset.catalog.title[dataset.split.truth[user]] for user in users]
        assert sorted(named) == sorted(truths) and named != truths


def test_items_come_in_with_a_chance_that_grows_to_one(examples):
    hybrid = np.array([(examples[k]["prompt"] >= FIRST).any() for k in range(ROWS)])
    quarters = hybrid.reshape(4, -1).mean(axis=1)
    assert np.all(np.abs(quarters - [0.125, 0.375, 0.625, 0.875]) < 4 * 0.05)  # four standard errors
    assert not hybrid[0]


def test_a_row_depends_on_its_number_alone(examples):
    again = pickle.loads(pickle.dumps(examples))  # as a worker gets it
    for k in (300, 7, 150):
        for name in ("prompt", "response"):
            np.testing.assert_array_equal(again[k][name], examples[k][name])


def test_a_model_without_items_is_not_asked_in_items(dataset, folder):
    with pytest.raises(UserError, match=r"prompt.item_tokens.*configs/llara.py"):
        source(dataset, Chat(folder))
