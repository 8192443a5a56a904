import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2rec_jax.metrics import ranking_metrics
from r2rec_jax.runtime.errors import UserError


def test_ranks_by_a_stable_sort():
    rng = np.random.default_rng(0)
    candidates = np.array([rng.permutation(50)[:20] for _ in range(200)])
    scores = rng.integers(0, 6, size=candidates.shape).astype(float)  # many ties
    truth = candidates[np.arange(200), rng.integers(20, size=200)]
    ranks = ranking_metrics.ranks_from_scores(scores, candidates, truth)
    for row in range(200):
        order = np.argsort(-scores[row], kind="stable")
        assert candidates[row][order].tolist().index(truth[row]) + 1 == ranks[row]
    assert ranks.dtype == np.int32


def test_ties_are_unbiased_over_shuffled_candidates():
    candidates = np.array([np.random.default_rng(n).permutation(20) for n in range(4000)])
    truth = np.zeros(4000, dtype=int)
    ranks = ranking_metrics.ranks_from_scores(np.zeros(candidates.shape), candidates, truth)
    assert abs(ranks.mean() - 10.5) < 0.4


def test_scores_that_cannot_rank_are_refused():
    candidates = np.arange(4).reshape(2, 2)
    with pytest.raises(UserError, match="not a number"):
        ranking_metrics.ranks_from_scores([[1, 0], [np.nan, 0]], candidates, [0, 2])
    with pytest.raises(UserError, match="exactly once"):
        ranking_metrics.ranks_from_scores(np.zeros((2, 2)), candidates, [0, 9])
    with pytest.raises(UserError, match="exactly once"):
        ranking_metrics.ranks_from_scores(np.zeros((1, 2)), [[5, 5]], [5])
    with pytest.raises(UserError, match="do not match"):
        ranking_metrics.ranks_from_scores(np.zeros((2, 3)), candidates, [0, 2])


def test_by_hand():
    found = ranking_metrics.summarise(np.array([1, 2, 3, 4, 0]))
    assert found == pytest.approx(
        {
            "hr@1": 1 / 5,
            "hr@3": 3 / 5,
            "ndcg@3": (1 + 0.6309297535714575 + 0.5) / 5,
            "mrr": (1 + 1 / 2 + 1 / 3 + 1 / 4) / 5,
        }
    )


def test_a_miss_stays_in_the_denominator():
    assert ranking_metrics.summarise([1, 0, 0, 0])["hr@1"] == 0.25
    assert ranking_metrics.summarise([0, 0])["ndcg@3"] == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(2, 10))
def test_ndcg_stays_in_its_bounds(ranks, k):
    found = ranking_metrics.summarise(ranks, ks=(1, k))
    low, high = ranking_metrics.ndcg_bounds(found["hr@1"], found[f"hr@{k}"], k)
    assert low - 1e-12 <= found[f"ndcg@{k}"] <= high + 1e-12


def test_bounds_of_the_paper():
    assert ranking_metrics.ndcg_bounds(0.4, 0.6, 3) == pytest.approx(
        (0.4 + 0.5 * 0.2, 0.4 + 0.6309 * 0.2), 1e-4
    )


@pytest.mark.parametrize("ranks", [[], [-1], [[[1, 2]]]])
def test_ranks_that_mean_nothing_are_refused(ranks):
    with pytest.raises(UserError):
        ranking_metrics.summarise(np.array(ranks))


def test_chance_is_the_mean_over_every_rank():
    every_rank = ranking_metrics.summarise(np.arange(1, 21))
    assert ranking_metrics.chance(20) == pytest.approx({k: every_rank[k] for k in ranking_metrics.chance(20)})


def test_hr_by_position():
    candidates = np.array([[7, 8, 9], [8, 7, 9], [7, 8, 9]])
    found = ranking_metrics.hr_by_position([1.0, 0.25, 0.0], candidates, [7, 7, 7])
    assert found == [0.5, 0.25, None]
