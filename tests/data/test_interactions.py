import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.data.interactions import Interactions

ROWS = st.lists(st.tuples(*(st.integers(0, n) for n in (4, 5, 4, 3))), max_size=40)


def from_rows(rows):
    user, item, rating, time = np.array(rows, np.int64).reshape(-1, 4).T
    return Interactions.from_log(user, item, rating + 1, time, 5, 6)


@given(ROWS)
def test_sorted_stable_and_without_repeats(rows):
    log = from_rows(rows)
    seen, expected = set(), []
    for row in sorted(rows, key=lambda row: (row[0], row[3])):  # Python's sort is stable
        if row[:2] not in seen:
            seen.add(row[:2])
            expected.append((row[0], row[1], row[2] + 1, row[3]))
    columns = (log.user, log.item, log.rating, log.time)
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == expected
    assert [c.dtype.name for c in columns] == ["int32", "int32", "float32", "int64"]


@given(ROWS)
def test_offsets_bound_the_rows_of_each_user(rows):
    log = from_rows(rows)
    assert log.offsets.dtype == np.int64
    assert log.offsets.shape == (6,)
    for user in range(5):
        own = np.flatnonzero(log.user == user).tolist()
        assert own == list(range(log.offsets[user], log.offsets[user + 1]))


def test_ties_keep_the_order_of_the_file():
    log = Interactions.from_log([0, 0, 0], [2, 0, 1], [1, 2, 3], [7, 7, 7], 1, 3)
    assert log.item.tolist() == [2, 0, 1]


@pytest.mark.parametrize("user, item", [([0, 2], [0, 0]), ([0, 1], [0, -1]), ([0], [0, 1])])
def test_bad_columns_are_refused(user, item):
    with pytest.raises(ValueError):
        Interactions.from_log(user, item, [1, 1], [0, 0], 2, 2)
