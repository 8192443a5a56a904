"""Chains through the latest items, against every loop that there is."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.chains.sampler import sample_chains
from r2rec_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def graph(dataset):
    return build_graph(dataset)


@pytest.fixture(scope="module")
def ratings(dataset) -> dict[tuple[int, int], tuple[float, int]]:
    """(user, item) -> (rating, time) of all that may be seen."""
    log = dataset.interactions
    columns = (log.user.tolist(), log.item.tolist(), log.rating.tolist(), log.time.tolist())
    rows = enumerate(zip(*columns, strict=True))
    return {(u, i): (r, t) for row, (u, i, r, t) in rows if row < dataset.split.cutoff[u]}


def history(dataset, user: int) -> list[int]:
    return dataset.interactions.item[dataset.history(user)].tolist()


def loops(ratings, user: int, i0: int, i1: int, before: float = np.inf) -> list[int]:
    """Who else rated both items, by looking at everybody."""
    others = {u for u, _ in ratings} - {user}
    known = [all((u, i) in ratings and ratings[u, i][1] < before for i in (i0, i1)) for u in sorted(others)]
    return [u for u, knows in zip(sorted(others), known, strict=True) if knows]


def walked(ratings, user: int, items: list[int], count: int, before: float) -> list[tuple[int, int]]:
    """The pairs that chains should go through, from the end of the history on."""
    pairs, items = [], list(items)
    while len(items) > 1 and len(pairs) < count:
        if loops(ratings, user, *items[-2:], before):
            pairs.append((items[-2], items[-1]))
            items.pop()
        items.pop()
    return pairs[::-1]


@pytest.mark.parametrize("dated", [False, True])
def test_they_go_through_the_latest_pairs_that_somebody_rated(dataset, graph, ratings, dated):
    log, passed_over = dataset.interactions, 0
    for user in range(log.n_users):
        # Of these times few companions are left for early users, so that some pairs have none.
        before = int(np.quantile(log.time, 0.3)) if dated else None
        items = history(dataset, user)
        chains = sample_chains(
            graph, user, 3, np.random.default_rng(user), selection="recent", history=items, before=before
        )
        limit = np.inf if before is None else before
        expected = walked(ratings, user, items, 3, limit)
        assert [(chain.i0, chain.i1) for chain in chains] == expected
        passed_over += expected != list(zip(items[-6::2], items[-5::2], strict=True))
        for chain in chains:
            assert chain.peer in loops(ratings, user, chain.i0, chain.i1, limit)
            hops = [ratings[who, item][0] for who, item in ((user, chain.i0), (chain.peer, chain.i0))]
            assert (chain.r00, chain.r10) == tuple(hops)
            hops = [ratings[who, item][0] for who, item in ((chain.peer, chain.i1), (user, chain.i1))]
            assert (chain.r11, chain.r01) == tuple(hops)
    assert passed_over > 10 or not dated


def test_companions_are_drawn_uniformly_and_differ_where_they_can(dataset, graph, ratings):
    user = max(range(20), key=lambda u: len(history(dataset, u)))
    items, rng, seen = history(dataset, user), np.random.default_rng(1), Counter()
    everyone = loops(ratings, user, *items[-2:])
    assert len(everyone) > 2
    for _ in range(1500):
        chains = sample_chains(graph, user, 4, rng, selection="recent", history=items)
        seen[chains[-1].peer] += 1
        fresh = set()
        for chain in chains[::-1]:
            free = set(loops(ratings, user, chain.i0, chain.i1)) - fresh
            assert chain.peer in free or not free
            fresh.add(chain.peer)
    assert set(seen) == set(everyone)
    assert chisquare(list(seen.values())).pvalue > 1e-3


def test_short_histories_and_long_loops(graph, dataset):
    rng = np.random.default_rng(0)
    for items in ([], history(dataset, 0)[:1]):
        assert sample_chains(graph, 0, 3, rng, selection="recent", history=items) == []
    with pytest.raises(UserError, match="2 companions selected 'recent'"):
        sample_chains(graph, 0, 3, rng, selection="recent", history=history(dataset, 0), length=2)
