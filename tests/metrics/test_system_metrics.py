"""Measures of ranks against brute force, ranx's numbers (golden/make_ranking_golden.py) and scipy's tests."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from r2rec_jax.metrics import ranking_metrics
from r2rec_jax.metrics.intervals import sign_flip_p
from r2rec_jax.metrics.system_metrics import by_quartile, measure, paired
from r2rec_jax.runtime.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ranking.json").read_text())
RANX = {"hit_rate@1": "hr@1", "hit_rate@3": "hr@3", "hit_rate@5": "hr@5", "ndcg@3": "ndcg@3"}
RANX |= {"ndcg@5": "ndcg@5", "mrr": "mrr"}
GOLDEN_RANKS = [
    np.array(
        [one.index(true) + 1 if true in one else 0 for one, true in zip(listed, GOLDEN["truth"], strict=True)]
    )
    for listed in GOLDEN["listed"]
]


@pytest.mark.parametrize("system", [0, 1])
def test_metrics_are_ranxs(system):
    found = ranking_metrics.summarise(GOLDEN_RANKS[system], ks=(1, 3, 5))
    assert found == pytest.approx({RANX[name]: x for name, x in GOLDEN["metrics"][system].items()})


def test_paired_test_is_ranxs():
    found = paired(*[ranks[None] for ranks in GOLDEN_RANKS], seed=0)
    a, b = GOLDEN["metrics"]
    for name in ("hit_rate@1", "ndcg@3"):
        ours = found[RANX[name]]
        assert ours["difference"] == pytest.approx(a[name] - b[name])
        assert ours["p"] == pytest.approx(GOLDEN["p"][name], abs=0.006)
        assert ours["ci95"][0] < ours["difference"] < ours["ci95"][1]


def test_sign_flips_approach_the_exact_test():
    rng = np.random.default_rng(4)
    few = np.concatenate([rng.normal(0.4, 1, 11), np.zeros(5)])  # 2^11 patterns
    exact = stats.permutation_test((few,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_p(few, seed=0, samples=40_000) == pytest.approx(exact, abs=0.01)
    hits = np.array([1] * 14 + [-1] * 4 + [0] * 82)  # of hits and misses it is McNemar's exact test
    assert sign_flip_p(hits, seed=0, samples=40_000) == pytest.approx(
        stats.binomtest(14, 18).pvalue, abs=0.005
    )
    assert sign_flip_p(np.zeros(9), seed=0) == 1.0
    assert sign_flip_p(np.ones(60), seed=0, samples=99) == 0.01  # never 0


def test_systems_alike_are_called_different_one_time_in_twenty():
    rng = np.random.default_rng(5)
    small = [sign_flip_p(rng.normal(0, 1, 60), seed=k, samples=199) <= 0.05 for k in range(400)]
    assert stats.binomtest(sum(small), 400, 0.05).pvalue > 0.01


def test_every_number_by_brute_force(dataset):
    users = dataset.split.users["evaluation"]
    rank_RN = np.random.default_rng(0).integers(0, 7, (3, len(users)))
    found = measure(dataset, users, rank_RN, seed=1, ks=(1, 2, 5))
    assert json.loads(json.dumps(found)) == found
    assert (found["users"], found["runs"]) == (len(users), 3)
    cells = rank_RN.ravel().tolist()
    for k in (1, 2, 5):
        assert found[f"hr@{k}"] == pytest.approx(sum(0 < r <= k for r in cells) / len(cells))
    for k in (2, 5):
        gain = sum(1 / np.log2(1 + r) for r in cells if 0 < r <= k)
        assert found[f"ndcg@{k}"] == pytest.approx(gain / len(cells))
        low, high = ranking_metrics.ndcg_bounds(found["hr@1"], found[f"hr@{k}"], k)
        assert low <= found[f"ndcg@{k}"] <= high
    assert found["mrr"] == pytest.approx(sum(1 / r for r in cells if r) / len(cells))
    for name, (low, high) in found["ci95"].items():
        assert low < found[name] < high

    log, split = dataset.interactions, dataset.split
    activity, popularity, place = [], [], []
    for user in users:
        activity.append(sum(log.user[row] == user for row in range(split.cutoff[user])))
        visible = np.flatnonzero(log.item == split.truth[user])
        popularity.append(sum(row < split.cutoff[log.user[row]] for row in visible))
        place.append(split.candidates[user].tolist().index(split.truth[user]))
    hits = {n: [r == 1 for r in rank_RN[:, n]] for n in range(len(users))}
    for at, rate in enumerate(found["hr@1_by_position"]):
        there = [hit for n in hits if place[n] == at for hit in hits[n]]
        assert rate == (pytest.approx(np.mean(there)) if there else None)
    for name, counts in (("activity", activity), ("popularity", popularity)):
        rows = found[f"hr@1_by_{name}"]
        assert sum(row["users"] for row in rows) == len(users)
        assert [row["from"] for row in rows] == sorted(row["from"] for row in rows)
        for row in rows:
            inside = [n for n in hits if row["from"] <= counts[n] <= row["to"]]
            assert len(inside) == row["users"]
            assert row["hr@1"] == pytest.approx(np.mean([hits[n] for n in inside]))


def test_quarters():
    rows = by_quartile(np.arange(40) % 2, np.arange(40), seed=0)
    assert [(row["from"], row["to"]) for row in rows] == [(0, 9), (10, 19), (20, 29), (30, 39)]
    (row,) = by_quartile(np.ones(6), np.full(6, 3), seed=0)
    assert row == {"from": 3, "to": 3, "users": 6, "hr@1": 1.0, "ci95": [1.0, 1.0]}
    rows = by_quartile(np.ones(8), np.array([1, 1, 1, 1, 1, 1, 2, 9]), seed=0)
    assert [(row["from"], row["to"], row["users"]) for row in rows] == [(1, 1, 6), (2, 9, 2)]


def test_what_cannot_be_measured_is_named(dataset):
    users = dataset.split.users["evaluation"]
    good = np.ones((1, len(users)), int)
    nobody = next(u for u in range(dataset.interactions.n_users) if (dataset.split.candidates[u] < 0).all())
    with pytest.raises(UserError, match=f"user {nobody} has no candidates"):
        measure(dataset, np.array([users[0], nobody]), good[:, :2], 0)
    for wrong in (good[:, 1:], good[0], good + 99, np.ones((0, len(users)), int), -good):
        with pytest.raises(UserError):
            measure(dataset, users, wrong, 0)
    with pytest.raises(UserError, match="not paired"):
        paired(good, good[:, 1:], 0)
