import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.data.generate import generate
from r2rec_jax.data.interactions import Interactions
from r2rec_jax.data.protocol import hold_out, split
from r2rec_jax.runtime.errors import UserError

SIZES = {"sft": 20, "grpo": 15, "validation": 5, "evaluation": 20}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(1, 5)), max_size=60))
def test_hold_out_against_a_plain_loop(rows):
    user, item, rating = np.array(rows, np.int64).reshape(-1, 3).T
    log = Interactions.from_log(user, item, rating, np.arange(len(rows)), 4, 10)
    truth, cutoff = hold_out(log, min_likes=3, like_above=3.0)
    for who in range(4):
        own = [row for row in range(len(log)) if log.user[row] == who]
        liked = [row for row in own if log.rating[row] > 3]
        if len(liked) >= 3:
            assert (truth[who], cutoff[who]) == (log.item[liked[-1]], liked[-1])
        else:
            assert (truth[who], cutoff[who]) == (-1, log.offsets[who + 1])


def test_groups_are_disjoint_eligible_and_of_the_size_asked(small_dataset):
    users = small_dataset.split.users
    assert {name: len(group) for name, group in users.items()} == SIZES
    everyone = np.concatenate(list(users.values()))
    assert len(set(everyone.tolist())) == 60
    assert (small_dataset.split.truth[everyone] >= 0).all()


def test_candidates_hold_the_truth_once_and_nothing_else_the_user_rated(small_dataset):
    log, drawn = small_dataset.interactions, small_dataset.split
    members = np.concatenate(list(drawn.users.values()))
    for user in members:
        rated = set(log.item[log.user == user].tolist())
        row = drawn.candidates[user].tolist()
        assert len(set(row)) == 20
        assert set(row) & rated == {drawn.truth[user]}
        assert set(row) <= set(log.item.tolist())
    others = np.setdiff1d(np.arange(log.n_users), members)
    assert (drawn.candidates[others] == -1).all()


def test_unrated_items_are_never_negatives():
    item = np.concatenate([np.arange(8), np.arange(8, 14)])  # 14..19 are rated by nobody
    log = Interactions.from_log([0] * 8 + [1] * 6, item, np.full(14, 5), np.arange(14), 2, 20)
    row = split(log, seed=0, sizes={"evaluation": 2}, candidates=7).candidates[0]
    assert set(row.tolist()) == {7, *range(8, 14)}


def test_truth_has_no_favourite_place():
    log, _ = generate(users=500, items=100)
    drawn = split(log, seed=0, sizes={"evaluation": 400})
    users = drawn.users["evaluation"]
    place = np.argmax(drawn.candidates[users] == drawn.truth[users, None], axis=1)
    counts = np.bincount(place, minlength=20)
    # chi-square with 19 degrees of freedom: 43.8 is its 99.9% point.
    assert ((counts - 20) ** 2 / 20).sum() < 43.8


def test_same_seed_same_split_other_seed_other_split(small_dataset):
    log, first = small_dataset.interactions, small_dataset.split
    again, other = (split(log, seed=seed, sizes=SIZES) for seed in (1, 2))
    assert np.array_equal(first.candidates, again.candidates)
    assert not np.array_equal(first.candidates, other.candidates)
    assert not np.array_equal(first.users["evaluation"], other.users["evaluation"])
    assert np.array_equal(first.truth, other.truth)


def test_training_sizes_move_no_evaluation_user(small_dataset):
    fewer = split(small_dataset.interactions, seed=1, sizes={"sft": 3, "evaluation": 20})
    assert np.array_equal(fewer.users["evaluation"], small_dataset.split.users["evaluation"])


def test_a_users_candidates_do_not_depend_on_other_users(small_dataset):
    """The draw is a function of (seed, user): rewriting everyone else leaves it alone."""
    log, drawn = small_dataset.interactions, small_dataset.split
    user = int(drawn.users["evaluation"][0])
    mine = log.user == user
    strangers = generate(seed=99, users=log.n_users, items=log.n_items)[0]
    theirs = strangers.user != user
    mixed = Interactions.from_log(
        *(
            np.concatenate([getattr(log, name)[mine], getattr(strangers, name)[theirs]])
            for name in ("user", "item", "rating", "time")
        ),
        log.n_users,
        log.n_items,
    )
    assert set(mixed.item.tolist()) == set(log.item.tolist())
    everyone = int((hold_out(mixed, 6, 3.0)[0] >= 0).sum())
    redrawn = split(mixed, seed=1, sizes={"evaluation": everyone})
    assert np.array_equal(redrawn.candidates[user], drawn.candidates[user])


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"sizes": {"evaluation": 81}}, "81 users but only"),
        ({"sizes": {"test": 5}}, "'test'"),
        ({"sizes": {"evaluation": 5}, "candidates": 60}, "59 negatives"),
        ({"sizes": {"evaluation": -1}}, "negative size"),
        ({"sizes": {"evaluation": 5}, "candidates": 1}, "at least 2"),
    ],
)
def test_impossible_splits_say_why(small_dataset, arguments, says):
    with pytest.raises(UserError, match=says):
        split(small_dataset.interactions, seed=0, **arguments)
