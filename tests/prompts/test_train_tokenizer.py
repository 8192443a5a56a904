import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2rec_jax.prompts.chat import MARKERS
from r2rec_jax.prompts.train_tokenizer import train_tokenizer


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
