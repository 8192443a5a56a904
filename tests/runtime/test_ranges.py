"""What a range lets through, against its own words."""

import math

import pytest

from r2rec_jax.runtime.ranges import BUCKETS, PART, SEED, Each, Row, Text, one_of, real, whole

ROW = Row((real(0.0, 1.0, above=True), whole(1)))


@pytest.mark.parametrize(
    ("allowed", "within", "without"),
    [
        (whole(1), (1, 2**31 - 1), (0, 2**31, 1.0, True, "1")),
        (whole(1, off=-1), (-1, 1), (0, -2)),
        (real(0.0), (0, 0.0, 1e30), (-1e-9, math.nan, math.inf, False)),
        (PART, (1e-9, 1), (0.0, 1.01)),
        (real(0.0, 1.0, below=True), (0.0, 0.999), (1.0,)),
        (one_of("a", ""), ("a", ""), ("b", None, 1)),
        (Text(r"\d+:\d+", "A:B"), ("1:2",), ("1:", "1:2\n", 1)),
        (BUCKETS, ((1,), [1, 5]), ((), (5, 1), (1, 1), 1)),
        (Each(SEED, distinct=True), ((), (3, 1)), ((1, 1), (-1,))),
        (ROW, ((0.5, 1),), ((0.0, 1), (0.5,), (0.5, 1, 1))),
        (Row((whole(1), whole(1)), ascending=True), ((3, 3),), ((3, 2),)),
    ],
)
def test_bounds(allowed, within, without):
    assert all(map(allowed.allows, within))
    assert not any(map(allowed.allows, without))


def test_words():
    assert str(whole(1, 9, off=-1)) == "a whole number from 1 to 9, or -1"
    assert str(PART) == "a number above 0 to 1"
    assert str(one_of("", "int8")) == "one of '', int8"
    assert str(Each(whole(1, 9), fewest=1)) == "a tuple of at least one, each a whole number from 1 to 9"
    assert str(Row((whole(1, 2), PART))) == "(a whole number from 1 to 2; a number above 0 to 1)"
