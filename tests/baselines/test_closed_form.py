"""Every baseline against a second way to compute the same scores."""

import numpy as np
import pytest

from r2rec_jax.baselines import ease, item_knn, popularity, random_order
from r2rec_jax.baselines.observed import observed_matrix
from r2rec_jax.runtime.errors import UserError


def test_popularity_counts_what_came_before_the_cutoffs(dataset, users, seen):
    scores = popularity.fit_score(dataset, users)
    for row, user in enumerate(users):
        expected = [sum(item in own for own in seen) for item in dataset.split.candidates[user]]
        assert scores[row].tolist() == expected


@pytest.mark.parametrize("profile", ["all", "recent_likes"])
@pytest.mark.parametrize("k", [3, 50])
def test_item_knn_by_loops(dataset, users, seen, k, profile):
    raters = [{user for user, own in enumerate(seen) if item in own} for item in range(30)]

    def similarity(i: int, j: int) -> float:
        both = len(raters[i] & raters[j])
        return 0.0 if i == j else both / ((len(raters[i]) * len(raters[j])) ** 0.5 + 10)

    scores = item_knn.fit_score(dataset, users, k=k, profile=profile)
    for row, user in enumerate(users):
        own = seen[user] if profile == "all" else set(dataset.recent_likes(user, 5).tolist())
        for column, item in enumerate(dataset.split.candidates[user]):
            near = sorted((similarity(item, other) for other in range(30)), reverse=True)[:k]
            kept = [s for s in (similarity(item, other) for other in own) if s >= near[-1]]
            # Equal similarities at the k-th place may be kept or dropped: bound both ways.
            sure = [s for s in kept if s > near[-1]]
            assert sum(sure) - 1e-5 <= scores[row, column] <= sum(kept) + 1e-5


def test_item_knn_blocks_agree(dataset, users, monkeypatch):
    whole = item_knn.fit_score(dataset, users, k=5)
    monkeypatch.setattr(item_knn, "_CELLS_PER_BLOCK", 100)
    np.testing.assert_allclose(item_knn.fit_score(dataset, users, k=5), whole, rtol=1e-6)


def test_ease_is_one_ridge_a_column(dataset):
    observed = observed_matrix(dataset)
    dense, l2 = observed.toarray().astype(np.float64), 7.0
    weights = ease.fit(observed, l2=l2)
    for column in range(30):
        # A zero diagonal is the ridge of one column on all the others.
        others = np.delete(dense, column, axis=1)
        gram = others.T @ others + l2 * np.eye(29)
        expected = np.linalg.solve(gram, others.T @ dense[:, column])
        np.testing.assert_allclose(np.delete(weights[:, column], column), expected, atol=2e-5)
    assert not np.diag(weights).any()


@pytest.mark.parametrize("profile", ["all", "recent_likes"])
def test_ease_scores_by_loops(dataset, users, seen, profile):
    weights = ease.fit(observed_matrix(dataset), l2=50.0)
    scores = ease.fit_score(dataset, users, l2=50.0, profile=profile)
    for row, user in enumerate(users):
        own = sorted(seen[user]) if profile == "all" else dataset.recent_likes(user, 5)
        expected = [weights[own, item].sum() for item in dataset.split.candidates[user]]
        np.testing.assert_allclose(scores[row], expected, atol=1e-5)


def test_ease_refuses_what_it_cannot_do(dataset, monkeypatch):
    with pytest.raises(UserError, match="above 0"):
        ease.fit(observed_matrix(dataset), l2=0)
    monkeypatch.setattr(ease, "_MOST_ITEMS", 10)
    with pytest.raises(UserError, match="limit"):
        ease.fit(observed_matrix(dataset), l2=1)


def test_random_order_belongs_to_the_user(dataset, users):
    scores = random_order.fit_score(dataset, users, seed=3)
    assert scores.shape == (len(users), 8)
    np.testing.assert_array_equal(random_order.fit_score(dataset, users[5:], seed=3), scores[5:])
    assert (random_order.fit_score(dataset, users, seed=4) != scores).all()
