import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.data.mapped_text import Labels, Texts, Traits

ANY_TEXT = st.text(st.characters(), max_size=10)  # lone surrogates included
PEOPLE = st.lists(st.dictionaries(st.sampled_from(["age", "city", "x"]), ANY_TEXT), max_size=8)


@given(st.lists(ANY_TEXT, max_size=8))
def test_texts(texts):
    kept = Texts.of(texts)
    assert list(kept) == texts and len(kept) == len(texts)
    assert [kept[np.int32(k)] for k in range(-len(texts), len(texts))] == texts + texts


@given(st.lists(st.lists(ANY_TEXT, max_size=4), max_size=8))
def test_labels(tuples):
    assert list(Labels.of(tuples)) == [tuple(names) for names in tuples]


@given(PEOPLE)
def test_traits(people):
    kept = Traits.of(people)
    assert list(kept) == people
    assert Traits.of(kept) is kept


@pytest.mark.parametrize("kept", [Texts.of("ab"), Labels.of(["a", "b"]), Traits.of([{}, {}])])
def test_outside_is_an_index_error(kept):
    for index in (2, -3):
        with pytest.raises(IndexError):
            kept[index]


def test_arrays_that_disagree_are_refused():
    with pytest.raises(ValueError):
        Texts(np.zeros(3, np.uint8), np.array([0, 4]))
    with pytest.raises(ValueError):
        Labels(["a"], np.zeros(3, np.int32), np.array([0, 2]))
    with pytest.raises(ValueError):
        Traits({"age": ["1"]}, np.zeros((3, 2), np.int32))
