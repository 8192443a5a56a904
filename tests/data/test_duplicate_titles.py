"""Numbers of items with one name: each name once, and nobody else's."""

import collections

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.data.duplicate_titles import VERSION, versions


def test_by_hand():
    titles = ["Heat", "Emma", "Heat", "Heat (version 1)", "Heat"]
    none = np.zeros(5, np.int32)
    assert versions(titles, none).tolist() == [2, 0, 3, 0, 4]
    assert versions(titles, np.array([1995, 0, 1986, 0, 1995])).tolist() == [1, 0, 0, 0, 2]
    assert versions(["Heat (1995)", "Heat"], np.array([0, 1995])).tolist() == [1, 2]


@given(st.lists(st.sampled_from(["a", "b", "a (version 1)", "a (version 2)", "a (version 1) (version 1)"])))
def test_all_names_differ_and_a_single_one_stays(titles):
    found = versions(titles, np.zeros(len(titles), np.int32))
    names = [title + (VERSION.format(k) if k else "") for title, k in zip(titles, found, strict=True)]
    assert len(set(names)) == len(names)
    count = collections.Counter(titles)
    assert all((k == 0) == (count[title] == 1) for title, k in zip(titles, found, strict=True))
