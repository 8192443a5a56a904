import numpy as np
import pytest

from r2rec_jax.data.generate import generate
from r2rec_jax.data.interactions import Interactions
from r2rec_jax.data.negatives import Candidates, compact, draw_candidates
from r2rec_jax.data.protocol import hold_out, split
from r2rec_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def log():
    return generate(seed=7, users=120, items=60, ratings_per_user=12)[0]


def test_rows_of_a_few_users_look_like_the_dense_table():
    dense = np.full((6, 3), -1, np.int32)
    dense[[1, 4]] = [[5, 6, 7], [8, 9, 0]]
    sparse = compact(dense)
    assert sparse.shape == (6, 3) and len(sparse) == 6
    assert np.array_equal(np.array(sparse), dense)
    for users in (0, 1, 5, np.int32(4), [4, 1, 0, 4], np.array([[1], [2]]), np.array([], int)):
        assert np.array_equal(sparse[users], dense[np.asarray(users)])
    for wrong in (6, -1, [0, 6], 1.0, slice(2)):
        with pytest.raises(IndexError):
            sparse[wrong]
    nobody = Candidates(np.empty(0, np.int32), np.empty((0, 3), np.int32), 6)
    assert (nobody[[1, 2]] == -1).all()


@pytest.mark.parametrize("negatives", ["uniform", "popularity", "hard"])
def test_negatives_are_unrated_distinct_and_repeatable(log, negatives):
    groups = split(log, seed=3, sizes={"evaluation": 60}, negatives=negatives)
    again = split(log, seed=3, sizes={"evaluation": 60}, negatives=negatives)
    other = split(log, seed=4, sizes={"evaluation": 60}, negatives=negatives)
    assert np.array_equal(np.array(groups.candidates), np.array(again.candidates))
    assert not np.array_equal(groups.candidates.rows, other.candidates.rows)
    for user in groups.users["evaluation"]:
        row, own = groups.candidates[user].tolist(), set(log.item[log.user == user].tolist())
        assert len(set(row)) == 20 and set(row) & own == {groups.truth[user]}


def frequencies(log, user, negatives, draws=4000):
    """How often each item is the single negative of `user`, over seeds."""
    truth, cutoff = hold_out(log, 6, 3.0)
    drawn = np.zeros(log.n_items)
    for seed in range(draws):
        rows, _ = draw_candidates(
            log, np.array([user]), truth, cutoff, count=2, negatives=negatives, seed=seed
        )
        drawn[rows[user]] += 1
    drawn[truth[user]] = 0
    return drawn / draws


@pytest.mark.parametrize("negatives", ["uniform", "popularity", "hard"])
def test_the_distribution_against_enumeration(log, negatives):
    truth, cutoff = hold_out(log, 6, 3.0)
    user = int(np.flatnonzero(truth >= 0)[5])
    weight = np.zeros(log.n_items)
    visible = [
        (int(log.user[row]), int(log.item[row])) for row in range(len(log)) if row < cutoff[log.user[row]]
    ]
    if negatives == "uniform":
        weight[log.item] = 1
    elif negatives == "popularity":
        for _, item in visible:
            weight[item] += 1
    else:
        items_of = {who: [i for w, i in visible if w == who] for who in range(log.n_users)}
        users_of = {item: [w for w, i in visible if i == item] for item in range(log.n_items)}
        for via in items_of[user]:
            for other in users_of[via]:
                for item in items_of[other]:
                    weight[item] += 1 / len(items_of[user]) / len(users_of[via]) / len(items_of[other])
    weight[log.item[log.user == user]] = 0
    expected = weight / weight.sum()
    found = frequencies(log, user, negatives)
    # Five standard errors of a share, over about fifty items.
    assert np.all(np.abs(found - expected) < 5 * np.sqrt(expected / 4000) + 1e-9)


@pytest.mark.parametrize("negatives", ["popularity", "hard"])
def test_what_cannot_be_found_so_is_uniform_and_counted(negatives):
    """Three users apart from each other: no walk leaves user 0's items."""
    rows = [(u, 7 * u + k, 5, k) for u in range(3) for k in range(7)]
    log = Interactions.from_log(*np.array(rows).T, 3, 21)
    groups = split(log, seed=0, sizes={"evaluation": 3}, candidates=15, negatives=negatives)
    assert groups.drawn_uniformly == (3 * 14 if negatives == "hard" else 3 * 2)  # two truths are unseen
    for user in range(3):
        assert set(groups.candidates[user].tolist()) == {
            *set(range(21)) - set(range(7 * user, 7 * user + 7)),
            groups.truth[user],
        }


@pytest.mark.parametrize("negatives", ["popularity", "hard"])
def test_what_is_rated_from_a_truth_on_does_not_count(negatives):
    """Every user's truth is an item that nobody else rated, followed by one more: both are unseen."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        items = [*rng.choice(20, 8, replace=False), 20 + user, 60 + user]
        rows += [(user, item, 5 if k < 9 else 1, k) for k, item in enumerate(items)]
    log = Interactions.from_log(*np.array(rows).T, 40, 100)
    for seed in range(5):
        groups = split(log, seed=seed, sizes={"evaluation": 40}, candidates=4, negatives=negatives)
        assert groups.drawn_uniformly == 0
        for user in range(40):
            row = groups.candidates[user]
            assert (row[row != groups.truth[user]] < 20).all()


def test_up_to_the_whole_catalogue_and_no_further(log):
    most = 60 - max(np.diff(log.offsets)) + 1
    groups = split(log, seed=0, sizes={"evaluation": 100}, candidates=int(most))
    assert groups.candidates.shape[1] == most
    with pytest.raises(UserError, match="set at most") as error:
        split(log, seed=0, sizes={"evaluation": 100}, candidates=60)
    assert "negatives are needed" in str(error.value)


def test_an_unknown_kind_is_refused(log):
    with pytest.raises(UserError, match="'easy' is unknown: use uniform, popularity, hard"):
        split(log, seed=0, sizes={"evaluation": 1}, negatives="easy")
