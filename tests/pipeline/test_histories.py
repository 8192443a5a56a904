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
from r2rec_jax.pipeline.histories import ANSWER, BREAKS, ITEM, LEAST_ROOM, NARRATED, Histories
from r2rec_jax.pipeline.pretrain import PretrainRows
from r2rec_jax.prompts.chat import MARKERS, Chat
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.train_tokenizer import title_tokenizer
from r2rec_jax.prompts.wording import MINI

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
        texts.append(
            "".join(f" {'' if rating >= 4 else 'low '}{MINI.title(catalog, item)}" for item, rating in one)
        )
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
    titles = {title.removeprefix(" low") for text in rated for title in re.findall(r" .*?\)", text)}
    breaks = items = 0
    for tokens, weights in rows_of(histories, chat, length=60, options=0):
        learnt = {chat.text([token]) for token, weight in zip(tokens, weights, strict=True) if weight}
        assert learnt <= titles | {" low"} and set(weights) == {0.0, ITEM}
        for text in documents(tokens, chat):
            assert any("".join(seen(text)) in whole for whole in rated)
            assert text.count("\n") == 2 + 3 * text.count(".\n</think>\n\nOrder:")
            breaks, items = breaks + text.count("Order:"), items + text.count(")")
        assert 60 - LEAST_ROOM < len(tokens) <= 60  # filled with stretches
    assert breaks / items == pytest.approx(BREAKS, abs=0.02)


def test_interruptions_leave_the_history_as_it_was(histories, chat, rated):
    """Taken out, what is left is a stretch of the log; the first item after candidates is one of them."""
    choices = told = 0
    for tokens, weights in rows_of(histories, chat, length=150, options=6, count=100):
        texts = documents(tokens, chat)
        assert all(any("".join(seen(text)) in whole for whole in rated) for text in texts)
        text = "\n".join(texts)
        form = r"^Candidates:(.*)\.\n(?:Jo gave it a 4\.\n)?</think>\n\nOrder:(.*)$"
        asked = re.findall(form, text, re.MULTILINE)
        answers = [chat.text([t]) for t, weight in zip(tokens, weights, strict=True) if weight == ANSWER]
        assert len(answers) == len(asked)
        for (options, after), answer in zip(asked, answers, strict=True):
            assert after.startswith(answer) and options.count(answer) == 1
        words = [t for t, weight in zip(tokens, weights, strict=True) if weight == NARRATED]
        assert chat.text(words) == text.count(TOLD) * f"{TOLD}\n"
        choices, told = choices + len(asked), told + text.count(TOLD)
        assert len(tokens) <= 150
    assert choices > 60 and told > 20


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
