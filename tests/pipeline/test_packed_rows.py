import itertools

import numpy as np
import pytest

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.pipeline.packed_rows import Documents, PretrainRows
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.corpus import Corpus, Document
from r2rec_jax.prompts.train_tokenizer import train_tokenizer

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
