import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.chat import MARKERS
from r2rec_jax.prompts.train_tokenizer import title_tokenizer, train_tokenizer
from r2rec_jax.prompts.wording import wording

MINI = wording("mini")


@pytest.fixture(scope="module")
def small():
    return train_tokenizer(["the cat sat on the mat", "the dog sat on the log"] * 3, 300)


def test_the_markers_come_first_and_the_size_is_kept(small):
    assert [small.token_to_id(marker) for marker in MARKERS.values()] == list(range(len(MARKERS)))
    assert small.get_vocab_size() <= 300
    assert len(small.encode(" sat").ids) == 1


@given(st.text(max_size=80))
@settings(deadline=None)
def test_any_text_comes_back_from_its_tokens(small, text):
    ids = small.encode(text, add_special_tokens=False).ids
    assert small.decode(ids, skip_special_tokens=False) == text


def test_training_is_deterministic(small):
    again = train_tokenizer(["the cat sat on the mat", "the dog sat on the log"] * 3, 300)
    assert again.to_str() == small.to_str()


def test_every_title_is_one_token_after_a_space(corpus, tiny_chat):
    lengths = {title: len(tiny_chat.encode(f" {title}")) for title in corpus.title}
    assert {title for title, length in lengths.items() if length > 1} == set()


FILMS = Catalog(
    title=[
        "Heat",
        "Alien",
        "Aliens",
        "Alien: Resurrection",
        "Misérables, Les",
        "Kai saw Heat (1995)",
        "M > N",
    ],
    year=np.array([1995, 1979, 1986, 1997, 1998, 0, 1999], np.int32),
    genres=[("Film-Noir",)] * 7,
    demographics=[{"age": "under 18", "occupation": "K-12 student"}],
)


@pytest.fixture(scope="module")
def titles():
    return title_tokenizer(FILMS, MINI)


def pieces(tokenizer, text):
    return [tokenizer.id_to_token(token) for token in tokenizer.encode(text, add_special_tokens=False).ids]


def test_titles_are_tokens_whatever_they_begin_with(titles):
    names = [MINI.title(FILMS, item) for item in range(7)]
    assert [len(pieces(titles, f" {name}")) for name in names] == [1] * 7
    assert pieces(titles, "".join(f" {name}" for name in names)) == [f" {name}" for name in names]


def test_a_prompt_is_words_and_titles(titles):
    text = "Kai: under 18, K-12 student.\nKai saw Heat (1995) Aliens (1986).\n4 Heat (1995) 5 Jo 3.5"
    assert pieces(titles, text) == [
        "Kai:",
        " under 18",
        ",",
        " K-12 student",
        ".\n",
        "Kai",
        " saw",
        " Heat (1995)",
        " Aliens (1986)",
        ".\n",
        "4",
        " Heat (1995)",
        " 5",
        " Jo",
        " 3.5",
    ]


def test_the_markers_of_titles_come_first(titles):
    assert [titles.token_to_id(marker) for marker in MARKERS.values()] == list(range(len(MARKERS)))


@given(st.text(max_size=80))
@settings(deadline=None)
def test_any_text_comes_back_from_tokens_of_titles(titles, text):
    ids = titles.encode(text, add_special_tokens=False).ids
    assert titles.decode(ids, skip_special_tokens=False) == text
