import itertools
import pickle
import re

import numpy as np
import pytest

from configs.base import base, mini
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.pipeline.pretrain import ANSWER, LEAST_ROOM, NARRATED, Documents, Histories, PretrainRows
from r2rec_jax.prompts.chat import MARKERS, Chat
from r2rec_jax.prompts.corpus import Corpus, Document
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.train_tokenizer import title_tokenizer, train_tokenizer
from r2rec_jax.prompts.wording import MINI

CURRICULUM = ((0.25, 48, 3), (1.0, 160, 8))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    log, catalog = generate(seed=1, users=60, items=40, ratings_per_user=12)
    return Corpus(log, catalog, build_graph(Dataset("d", log, catalog, split(log, seed=0, sizes={}))))


@pytest.fixture(scope="module")
def chat(corpus, tmp_path_factory) -> Chat:
    rng = np.random.default_rng(0)
    documents = [corpus.document(rng, 8) for _ in range(300)]
    texts = (text for d in documents for text in (d.context, d.text, d.reasoning or ""))
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(texts, 600).save(str(folder / "tokenizer.json"))
    return Chat(folder)


@pytest.fixture(scope="module")
def rows(corpus, chat) -> PretrainRows:
    return PretrainRows(Documents(corpus, chat), chat.begin, rows=80, seed=3, curriculum=CURRICULUM)


@pytest.fixture(scope="module")
def moments() -> Moments:
    log, catalog = generate(seed=1, users=60, items=40, ratings_per_user=12)
    dataset = Dataset("d", log, catalog, split(log, seed=0, sizes={}))
    return Moments(dataset, build_graph(dataset), mini(base()).prompt)


@pytest.fixture(scope="module")
def mini_chat(moments, tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("titles")
    title_tokenizer(moments.dataset.catalog, MINI).save(str(folder / "tokenizer.json"))
    return Chat(folder)


class Scripted:
    """A corpus that says one thing after another and notes how many options were asked for."""

    def __init__(self, documents):
        self.documents, self.asked = itertools.cycle(documents), []

    def document(self, _, options):
        self.asked.append(options)
        return next(self.documents)


def test_the_mask_covers_exactly_the_text_to_learn(chat):
    plain = Document("List: A, B. Again:", " A, B.")
    whole = Document("", "Ann enjoyed A.")
    talk = Document("Order the best 1.", "Order: A", reasoning="A is a favourite.")
    length = 150
    text = Documents(Scripted([plain, whole, talk]), chat)
    row = PretrainRows(text, chat.begin, rows=1, seed=0, curriculum=((1, length, 4),))[0]
    expected = []
    for document in itertools.cycle([plain, whole, talk]):
        if document.reasoning is None:
            context = chat.encode(document.context)
            text = [*chat.encode(document.text), chat.end]
        else:
            context, text = (
                chat.prompt(document.context),
                chat.completion(document.reasoning, document.text),
            )
        if len(expected) + len(context) + len(text) > length:
            break
        expected += [(token, 0) for token in context] + [(token, 1) for token in text]
    learnt = list(zip(row["response"].tolist(), row["mask"].tolist(), strict=True))
    # After the first that does not fit, smaller ones may still follow.
    assert learnt[: len(expected)] == expected
    assert chat.think in row["response"] and row["prompt"].tolist() == [chat.begin]
    assert row["mask"][row["response"] == chat.think].max() == 0
    assert row["mask"][row["response"] == chat.end_think].min() == 1
    assert row["mask"][row["response"] == chat.end].min() == 1


def test_a_document_that_does_not_fit_is_left_out_whole(chat):
    short, long = Document("", "Ann"), Document("", "Ann enjoyed A. " * 40)
    source = Scripted([short, long])
    text = Documents(source, chat)
    row = PretrainRows(text, chat.begin, rows=1, seed=0, curriculum=((1, 20, 4),))[0]
    assert chat.decode(row["response"].tolist()).replace("<｜end▁of▁sentence｜>", "|") == "Ann|Ann|Ann|"
    assert len(source.asked) == 6  # three that did not fit end the row


def test_rows_fit_the_curriculum(rows):
    lengths = [len(rows[k]["response"]) for k in range(len(rows))]
    assert len(rows) == 80
    assert max(lengths[:21]) <= 48 < max(lengths[21:]) <= 160
    assert min(lengths[:21]) > 0
    assert np.mean(lengths[21:]) > 0.6 * 160  # rows are packed, not one document each


@pytest.mark.parametrize(("k", "options"), [(0, 3), (20, 3), (21, 8), (79, 8)])
def test_options_follow_the_curriculum(chat, k, options):
    source = Scripted([Document("", "Ann enjoyed A.")])
    _ = PretrainRows(Documents(source, chat), chat.begin, rows=80, seed=0, curriculum=CURRICULUM)[k]
    assert set(source.asked) == {options}


def test_a_row_depends_on_seed_and_place_alone(corpus, chat, rows):
    again = PretrainRows(Documents(corpus, chat), chat.begin, rows=80, seed=3, curriculum=CURRICULUM)
    other = PretrainRows(Documents(corpus, chat), chat.begin, rows=80, seed=4, curriculum=CURRICULUM)
    backwards = {k: again[k] for k in (70, 30, 5)}
    for k, row in backwards.items():
        for name in ("prompt", "response", "mask"):
            np.testing.assert_array_equal(row[name], rows[k][name])
    assert any(not np.array_equal(other[k]["response"], rows[k]["response"]) for k in backwards)
    assert not np.array_equal(rows[30]["response"], rows[31]["response"])


def test_rows_are_typed_and_aligned(rows):
    for k in (0, 25, 79):
        row = rows[k]
        assert {name: column.dtype for name, column in row.items()} == {
            "prompt": np.int32,
            "response": np.int32,
            "mask": np.float32,
        }
        assert row["response"].shape == row["mask"].shape
        assert set(row["mask"].tolist()) <= {0.0, 1.0}


TOLD = "Jo gave it a 4."


@pytest.fixture(scope="module")
def histories(moments, mini_chat) -> Histories:
    return Histories(moments, mini_chat, MINI, lambda _: TOLD)


def test_a_stretch_of_history_is_learnt_item_by_item(histories, mini_chat):
    rows = PretrainRows(histories, mini_chat.begin, rows=20, seed=0, curriculum=((1, 60, 0),))
    titles = {f" {MINI.title(histories.catalog, item)}" for item in range(len(histories.catalog.title))}
    for row in (rows[k] for k in range(20)):
        tokens, weights = row["response"].tolist(), row["mask"].tolist()
        learnt = {mini_chat.text([token]) for token, weight in zip(tokens, weights, strict=True) if weight}
        assert learnt <= titles | {" low"} and set(weights) == {0.0, 1.0}
        for text in _documents(tokens, mini_chat):
            assert re.fullmatch(r"Kai: .*\.\nKai saw.*\.\n", text), text
        assert 60 - LEAST_ROOM < len(tokens) <= 60  # filled with stretches


def test_a_query_ends_with_what_came_next(histories, mini_chat):
    rows = PretrainRows(histories, mini_chat.begin, rows=40, seed=0, curriculum=((1, 120, 6),))
    narrated = 0
    for row in (rows[k] for k in range(40)):
        tokens, weights = row["response"].tolist(), row["mask"].tolist()
        (text,) = _documents(tokens, mini_chat)
        *_, asked, answer, rest = (
            text.split("\n") if TOLD not in text else text.replace(TOLD + "\n", "").split("\n")
        )
        (place,) = np.flatnonzero(row["mask"] == ANSWER)
        title = mini_chat.text([tokens[place]])
        assert (answer, rest) == (f"Kai saw{title}.", "") and asked.count(title) == 1
        assert asked.startswith("Candidates:")
        told = [token for token, weight in zip(tokens, weights, strict=True) if weight == NARRATED]
        assert mini_chat.text(told) == (TOLD + "\n" if TOLD in text else "")
        narrated += TOLD in text
    assert 8 < narrated < 32


def test_pieces_are_the_tokens_of_the_text_as_a_whole(histories, mini_chat):
    rows = PretrainRows(histories, mini_chat.begin, rows=40, seed=1, curriculum=((0.5, 60, 0), (1, 120, 6)))
    for row in (rows[k] for k in range(40)):
        tokens = row["response"].tolist()
        again = [mini_chat.encode(text) for text in _documents(tokens, mini_chat)]
        assert [t for one in again for t in (mini_chat.user, *one, mini_chat.end)] == tokens


def test_what_has_no_room_loses_the_oldest(histories, mini_chat):
    whole, cut = (next(iter(histories.row(np.random.default_rng(5), length, 6)))[0] for length in (400, 68))
    longer, shorter = (_documents(tokens, mini_chat)[0].split("\n") for tokens in (whole, cut))
    assert len(cut) <= 68 < len(whole)
    assert longer[0] == shorter[0] and longer[2:] == shorter[2:]
    assert longer[1].endswith(shorter[1].removeprefix("Kai saw")) and len(shorter[1]) < len(longer[1])


def test_it_goes_to_a_worker_and_draws_the_same_there(moments, mini_chat):
    text = Histories(moments, mini_chat, MINI, print)
    again = pickle.loads(pickle.dumps(text))
    rows = [next(iter(one.row(np.random.default_rng(2), 60, 0))) for one in (text, again)]
    assert rows[0] == rows[1]


def _documents(tokens: list[int], chat: Chat) -> list[str]:
    text = chat.text(tokens)
    return [part.removeprefix(MARKERS["user"]) for part in text.split(MARKERS["end"])[:-1]]
