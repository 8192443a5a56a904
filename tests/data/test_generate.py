import hashlib

import numpy as np
import pytest

from r2rec_jax.data.generate import GENRES, generate
from r2rec_jax.data.generated_titles import TITLES
from r2rec_jax.data.protocol import hold_out
from r2rec_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def default():
    return generate()


def genre_of(catalog):
    return np.array([GENRES.index(genre) for (genre,) in catalog.genres])


def test_titles_are_distinct_words_and_no_genres():
    assert len(TITLES) >= 200
    assert len(set(TITLES)) == len(TITLES)
    assert not {title.lower() for title in TITLES} & set(GENRES)
    for title in TITLES:
        assert title.isascii() and title.isalpha() and title == title.capitalize()
        assert 4 <= len(title) <= 7


def test_default_shape(default):
    log, catalog = default
    assert (log.n_users, log.n_items) == (1600, 200)
    per_user = np.diff(log.offsets)
    assert (per_user.min(), per_user.max()) == (8, 22)
    assert per_user.mean() == pytest.approx(15, abs=0.5)
    assert len(set(catalog.title)) == 200
    assert np.bincount(genre_of(catalog)).tolist() == [25] * 8
    assert catalog.year.min() >= 1970 and catalog.year.max() <= 2009
    assert len(catalog.demographics) == 1600
    assert set(catalog.demographics[0]) == {"gender", "age", "occupation"}


def test_catalogue_is_the_one_the_committed_model_knows(default):
    """A change here means pretraining the tiny model again."""
    _, catalog = default
    facts = repr((catalog.title, catalog.year.tolist(), catalog.genres)).encode()
    assert hashlib.sha256(facts).hexdigest().startswith("147a131288a60028")


def test_tastes_ratings_and_popularity_have_the_documented_structure(default):
    log, catalog = default
    genre = genre_of(catalog)[log.item]
    table = np.zeros((log.n_users, len(GENRES)))
    np.add.at(table, (log.user, genre), 1)
    share = np.sort(table / table.sum(1, keepdims=True), axis=1)[:, ::-1].mean(0)
    assert share[0] == pytest.approx(0.65, abs=0.05)
    assert share[1] == pytest.approx(0.20, abs=0.05)

    main = genre == table.argmax(1)[log.user]
    assert (log.rating[main] >= 4).mean() > 0.85
    second = table.argsort(1)[:, -2][log.user] == genre
    assert (log.rating[~main & ~second] <= 3).mean() > 0.85
    assert set(np.unique(log.rating)) == {1, 2, 3, 4, 5}

    truth, _ = hold_out(log, 6, 3.0)
    eligible = np.flatnonzero(truth >= 0)
    assert len(eligible) >= 1500
    assert (genre_of(catalog)[truth[eligible]] == table.argmax(1)[eligible]).mean() > 0.65

    popularity = np.sort(np.bincount(log.item, minlength=200))[::-1]
    assert popularity[:20].sum() > 3 * popularity[-20:].sum()


def test_demographics_lean_weakly_on_the_main_genre(default):
    log, catalog = default
    table = np.zeros((log.n_users, len(GENRES)))
    np.add.at(table, (log.user, genre_of(catalog)[log.item]), 1)
    main = table.argmax(1)
    female = np.array([d["gender"] == "female" for d in catalog.demographics])
    shares = [np.bincount(main[who], minlength=8) / who.sum() for who in (female, ~female)]
    assert 0.1 < np.abs(shares[0] - shares[1]).sum() < 1.0


def test_time_increases_within_users_and_users_interleave(default):
    log, _ = default
    same_user = np.diff(log.user) == 0
    assert (np.diff(log.time)[same_user] > 0).all()
    by_time = log.user[np.argsort(log.time, kind="stable")]
    assert (np.diff(by_time) != 0).mean() > 0.99


def test_seed_changes_users_and_catalog_seed_changes_items():
    small = {"users": 30, "items": 40}
    log, catalog = generate(seed=5, **small)
    again, same_catalog = generate(seed=5, **small)
    assert all(
        np.array_equal(getattr(log, column), getattr(again, column))
        for column in ("user", "item", "rating", "time")
    )
    assert catalog.demographics == same_catalog.demographics
    other, other_catalog = generate(seed=6, **small)
    assert not np.array_equal(log.time[:20], other.time[:20])
    assert catalog.title == other_catalog.title and catalog.genres == other_catalog.genres
    assert generate(catalog_seed=1, **small)[1].title != catalog.title


def test_exhausted_genres_leave_the_rest():
    log, _ = generate(users=20, items=16, ratings_per_user=10)  # two items a genre
    assert np.diff(log.offsets).max() >= 14  # from_log would have dropped a repeated pick


@pytest.mark.parametrize("bad", [{"items": 5000}, {"items": 7}, {"users": 0}, {"items": 16}])
def test_impossible_sizes_are_refused(bad):
    with pytest.raises(UserError):
        generate(**bad)
