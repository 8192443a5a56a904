"""Rows read back as text and compared with the log they were made of."""

import functools
import pickle
import re

import numpy as np
import pytest

from configs.base import base, mini
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.pipeline.histories import ANSWER, BREAKS, ITEM, LEAST_ROOM, PROMPTS, Histories
from r2rec_jax.pipeline.packed_rows import PretrainRows
from r2rec_jax.prompts.chat import MARKERS, Chat
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.train_tokenizer import title_tokenizer
from r2rec_jax.prompts.wording import wording

MINI = wording("mini")

TOLD = "Jo gave it a 4."


@pytest.fixture(scope="module")
def moments() -> Moments:
    log, catalog = generate(seed=1, users=60, items=40, ratings_per_user=25)
    dataset = Dataset("d", log, catalog, split(log, seed=0, sizes={}))
    return Moments(dataset, build_graph(dataset), mini(base()).prompt)


@pytest.fixture(scope="module")
def chat(moments, tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("titles")
    title_tokenizer(moments.dataset.catalog, MINI).save(str(folder / "tokenizer.json"))
    return Chat(folder)


@pytest.fixture(scope="module")
def histories(moments, chat) -> Histories:
    return Histories(moments, chat, MINI, lambda _: TOLD)


@pytest.fixture(scope="module")
def rated(moments) -> list[str]:
    """Of every user the text of all that it rated before its truth."""
    log, catalog, texts = moments.dataset.interactions, moments.dataset.catalog, []
    for user in range(log.n_users):
        rows = moments.dataset.history(user)
        one = zip(log.item[rows].tolist(), log.rating[rows].tolist(), strict=True)
        texts.append("".join(f" {MINI.title(catalog, item)}" for item, _ in one))
    return texts


def rows_of(text, chat, *, length: int, options: int, count: int = 60):
    rows = PretrainRows(text, chat.begin, rows=count, seed=0, curriculum=((1, length, options),))
    for k in range(count):
        row = rows[k]
        yield row["response"].tolist(), row["mask"].tolist()


def documents(tokens: list[int], chat: Chat) -> list[str]:
    parts = re.split(f"{re.escape(MARKERS['user'])}|{re.escape(MARKERS['end'])}", chat.text(tokens))
    return [part for part in parts if part]


def seen(text: str) -> list[str]:
    """The stretches of history that a document tells, also where an answer would."""
    return re.findall(r"^(?:Kai saw|Order:)(.*?)\.?$", text, re.MULTILINE)


def test_stretches_are_of_the_log_and_learnt_item_by_item(histories, chat, rated):
    titles = {title for text in rated for title in re.findall(r" .*?\)", text)}
    breaks = items = 0
    for tokens, weights in rows_of(histories, chat, length=60, options=0):
        learnt = {chat.text([token]) for token, weight in zip(tokens, weights, strict=True) if weight}
        assert learnt <= titles and set(weights) == {0.0, ITEM}
        for text in documents(tokens, chat):
            assert any("".join(seen(text)) in whole for whole in rated)
            assert text.count("\n") == 2 + 3 * text.count(".\n</think>\n\nOrder:")
            breaks, items = breaks + text.count("Order:"), items + text.count(")")
        assert 60 - LEAST_ROOM < len(tokens) <= 60  # filled with stretches
    liked = len(histories.moments.liked) / sum(text.count(")") for text in rated)
    assert breaks / items == pytest.approx(BREAKS * liked, abs=0.02)


def test_a_prompt_tells_what_was_liked_and_asks_for_what_came_next(histories, chat, rated):
    """Likes and answer follow each other in the log; reasoning is learnt, and of candidates nothing."""
    prompts, count = 0, 200
    for tokens, weights in rows_of(histories, chat, length=150, options=6, count=count):
        text = chat.text(tokens)
        if "Candidates:" not in text:
            continue
        prompts += 1
        form = r"Kai is fond of(.*)\.\n(?s:.*)Candidates:(.*)\.\nJo gave it a 4\.\n</think>\n\nOrder:( .*\))"
        likes, options, answer = re.search(form, text).groups()
        assert any(whole.find(likes.rsplit(")", 2)[1] + ")") < whole.find(answer) for whole in rated)
        assert options.count("(") == 6
        of_weight = {
            weight: chat.text([t for t, w in zip(tokens, weights, strict=True) if w == weight])
            for weight in set(weights)
        }
        assert of_weight.keys() == {0.0, 1.0, ANSWER}
        assert (of_weight[1.0], of_weight[ANSWER]) == (f"{TOLD}\n", answer)
        assert len(tokens) <= 150
    assert prompts / count == pytest.approx(PROMPTS, abs=0.1)


def test_pieces_are_the_tokens_of_the_text_as_a_whole(histories, chat):
    for options in (0, 6):
        for tokens, _ in rows_of(histories, chat, length=150, options=options, count=20):
            texts = [part for text in documents(tokens, chat) for part in text.split(MARKERS["end_think"])]
            again = [token for text in texts for token in chat.encode(text)]
            assert again == [t for t in tokens if t not in (chat.user, chat.end, chat.end_think)]


def test_what_has_no_room_loses_the_oldest(histories, chat, rated):
    draw = functools.partial(histories._past, 3, histories.moments.rated(*_bounds(histories.moments, 3)))
    whole, cut = draw(room=400), draw(room=30)
    assert len(cut) <= 30 < len(whole)
    (all_of_it,), (rest,) = seen(chat.text(whole.tokens)), seen(chat.text(cut.tokens))
    assert all_of_it == rated[3] and all_of_it.endswith(rest)


def _bounds(moments: Moments, user: int) -> tuple[int, int]:
    rows = moments.dataset.history(user)
    return rows.start, rows.stop


def test_it_goes_to_a_worker_and_draws_the_same_there(moments, chat):
    text = Histories(moments, chat, MINI, str)
    again = pickle.loads(pickle.dumps(text))
    one, other = (next(iter(text.row(np.random.default_rng(2), 60, 0))) for text in (text, again))
    assert one == other
