import numpy as np
import pytest
from scipy import stats

from r2rec_jax.metrics import intervals
from r2rec_jax.runtime.errors import UserError


def test_hits_follow_the_binomial():
    # Resampling n hits and misses with share p draws a Binomial(n, p) count, exactly.
    n, hits = 1000, 400
    low, high = intervals.bootstrap_ci(np.arange(n) < hits, seed=0, samples=4000)
    exact = stats.binom(n, hits / n).ppf([0.025, 0.975]) / n
    assert [low, high] == pytest.approx(exact, abs=0.003)


def test_coverage():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        low, high = intervals.bootstrap_ci(rng.random(80) < 0.3, seed=trial, samples=300)
        inside += low <= 0.3 <= high
    assert inside / 200 > 0.89


def test_level_and_seed():
    values = np.random.default_rng(1).random(100)
    assert intervals.bootstrap_ci(values, 3) == intervals.bootstrap_ci(values, 3)
    assert intervals.bootstrap_ci(values, 3) != intervals.bootstrap_ci(values, 4)
    wide, narrow = (intervals.bootstrap_ci(values, 3, level=level) for level in (0.99, 0.5))
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    assert intervals.bootstrap_ci(np.full(9, 0.25), 0) == (0.25, 0.25)


def test_blocks_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(1).random(50)
    whole = intervals.bootstrap_ci(values, 3, samples=100)
    monkeypatch.setattr(intervals, "_DRAWS_PER_BLOCK", 170)
    assert intervals.bootstrap_ci(values, 3, samples=100) == pytest.approx(whole)


def test_pairs_cancel_what_they_share():
    rng = np.random.default_rng(2)
    b = rng.random(400)
    a = b + 0.01 + 0.01 * rng.random(400)
    low, high = intervals.paired_ci(a, b, seed=0)
    assert 0.014 < low < 0.015 < high < 0.016
    assert intervals.paired_ci(b, b, seed=0) == (0, 0)
    with pytest.raises(UserError, match="not paired"):
        intervals.paired_ci(a, b[1:], seed=0)


def test_ci95_has_the_metrics_names():
    found = intervals.ci95(np.array([1, 2, 0, 5]), seed=0)
    assert set(found) == {"hr@1", "hr@3", "ndcg@3", "mrr"}
    assert all(0 <= low <= high <= 1 for low, high in found.values())


@pytest.mark.parametrize("values, level", [([], 0.95), ([1.0], 1.0), ([[1.0]], 0.95)])
def test_no_interval(values, level):
    with pytest.raises(UserError):
        intervals.bootstrap_ci(np.array(values), 0, level=level)
