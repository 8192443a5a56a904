"""The contenders make the proposals they are compared by: formula 1, and the log has its sizes."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from r2rec_jax.bench import chains
from r2rec_jax.bench.peers.chain_proposals import PlainNumba, PlainPython, Vectorised
from r2rec_jax.chains.graph import compress
from r2rec_jax.chains.proposals import propose_companions
from tests.chains import formula


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(3)
    user, item = (index.astype(np.int32) for index in np.nonzero(rng.random((9, 10)) < 0.55))
    edges = dict.fromkeys(zip(user.tolist(), item.tolist(), strict=True), (1.0, 0))
    return compress(user, item, np.ones(len(user), np.float32), np.arange(len(user)), 9, 10), edges


@pytest.mark.parametrize("contender", [PlainPython, Vectorised, PlainNumba])
def test_contenders_make_the_proposals_of_formula_1(small, contender):
    graph, edges = small
    users = np.tile(np.arange(2, dtype=np.int32), 10_000)
    found = contender(graph)(users, 0)
    ours, _ = propose_companions(graph, users, 1)
    for user in (0, 1):
        chosen = found[users == user]
        seen = Counter(((peer,), (i0, i1)) for peer, i0, i1 in chosen[chosen[:, 0] >= 0].tolist())
        expected = formula.chains(edges, user)
        draws = sum(seen.values())
        assert draws > 2000 and set(seen) <= set(expected)
        assert (
            chisquare([seen[key] for key in expected], [draws * p for p in expected.values()]).pvalue > 1e-3
        )
        # As many are accepted, within five standard deviations of the difference.
        assert abs(draws - (ours[users == user] >= 0).sum()) < 5 * np.sqrt(2 * 10_000 / 4)


def test_hops_count_the_users_own_edges_once_there_and_back(small):
    graph, _ = small
    users, rng = np.arange(9, dtype=np.int32), np.random.default_rng(0)
    met = []
    for user in users:
        items = graph.items_of(user)
        raters = [graph.users_of(item) for item in items]
        top = int(np.argmax([len(row) for row in raters]))
        pool = np.concatenate([row for k, row in enumerate(raters) if k != top])
        met.append(np.mean(pool[rng.integers(len(pool), size=4000)] == user))
    assert chains._hops(graph, users) == pytest.approx(4 - 2 * np.mean(met), abs=0.02)


def test_the_log_has_its_sizes_and_power_laws():
    user, item, rating, time = chains.power_law_log(30_000, 10_000, 4_000, seed=1)
    assert len(user) == len(item) == len(rating) == len(time) == 30_000
    assert (np.diff(user) >= 0).all()
    assert len(np.unique(user.astype(np.int64) * 4_000 + item)) == 30_000
    assert user.dtype == item.dtype == np.int32 and item.min() >= 0 and item.max() < 4_000
    # The share of edges at the first x of the ranks is x^(1/3) and x^(1/2); repeats thin out the head.
    for index, size, power in ((item, 4_000, 1 / 3), (user, 10_000, 1 / 2)):
        degrees = np.sort(np.bincount(index, minlength=size))[::-1]
        assert degrees[: size // 10].sum() / 30_000 == pytest.approx(0.1**power, abs=0.08)
    again = chains.power_law_log(30_000, 10_000, 4_000, seed=1)
    assert all((a == b).all() for a, b in zip((user, item, rating, time), again, strict=True))
