"""Scales against ratings whose scale is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.data.rating_scale import Scale
from r2rec_jax.runtime.errors import UserError


def stars(least, most, step):
    return Scale("stars", least, most, step)


def detected(*ratings) -> Scale:
    return Scale.of(np.array(ratings, np.float32))


@pytest.mark.parametrize(
    ("ratings", "scale", "like_above"),
    [
        ((1, 2, 3, 4, 5), stars(1, 5, 1), 3),
        ((3, 5), stars(1, 5, 1), 3),  # nobody gave a 1
        ((5, 5), stars(1, 5, 1), 3),
        ((0, 3, 5), stars(0, 5, 1), 3),
        ((0.5, 4.5, 5), stars(0.5, 5, 0.5), 3),
        ((2, 4, 6, 10), stars(2, 10, 2), 6),
        ((8, 10, 6), stars(2, 10, 2), 6),
        ((7, 10), stars(1, 10, 1), 6),
        ((1, 2, 3, 4, 7), stars(1, 7, 1), 4),
        ((0, 1), stars(0, 1, 1), 0),
        ((0.1, 0.3, 1.0), stars(0.1, 1.0, 0.1), 0.6),
        ((60, 80, 95, 100), stars(60, 100, 5), 80),
        ((1, 1, 1), Scale("none", 1, 1, 1), 0),
        ((1, 1, 2, 1, 3, 250), Scale("counts", 1, 250, 1), 0),
    ],
)
def test_detection(ratings, scale, like_above):
    found = detected(*ratings)
    assert (found.kind, round(found.least, 6), found.most) == (scale.kind, scale.least, scale.most)
    assert found.step == pytest.approx(scale.step) and found.like_above == pytest.approx(like_above)
    assert found.contains(np.array(ratings, np.float32)).all()
    assert any(rating > found.like_above for rating in ratings)


@pytest.mark.parametrize("ratings", [(3, 3), (1.0, 2.00013, 3.7), (0, 1, 1000), tuple(range(50, 200))])
def test_no_scale_is_an_error_that_names_the_setting(ratings):
    with pytest.raises(UserError, match=r"set data\.scale"):
        detected(*ratings)


@given(
    st.integers(1, 3),
    st.sampled_from([1, 0.5, 0.1, 0.25, 2]),
    st.integers(2, 40),
    st.lists(st.integers(0, 40), min_size=3),
)
def test_a_scale_contains_the_ratings_it_is_detected_from(first, step, steps, places):
    scale = stars(first * step, (first + steps) * step, step)
    ratings = np.array([scale.least + min(place, steps) * step for place in places], np.float32)
    assert scale.contains(ratings).all()
    outside = np.array([scale.most + step, scale.least - step, scale.least + step / 2])
    assert not scale.contains(outside).any()
    try:
        found = Scale.of(ratings)
    except UserError:
        assert len(set(ratings)) == 1
    else:
        assert found.contains(ratings).all()


def test_settings():
    assert Scale.parse("") is None
    assert Scale.parse("2:10:2") == stars(2, 10, 2)
    assert Scale.parse("-10:10:0.01") == stars(-10, 10, 0.01)
    assert Scale.parse("counts").kind == "counts" and Scale.parse("none").kind == "none"
    for text in ("stars", "1:5", "5:1:1", "1:5:0", "1:nan:1", "1:5:3", "1:5:1:1", "a:b:c"):
        with pytest.raises(UserError, match="LEAST:MOST:STEP"):
            Scale.parse(text)
