from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chisquare

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.chains.sampler import companions, sample_chains


def by_brute_force(ratings, user):
    """Formula 1 spelled out: probability of every (companion, i0, i1)."""
    rated = {}
    for who, item in ratings:
        rated.setdefault(who, set()).add(item)
    shared = {who: rated[who] & rated[user] for who in rated if who != user}
    circle = [who for who in shared if len(shared[who]) >= 2]
    return {
        (who, i0, i1): 1 / len(circle) / (len(shared[who]) * (len(shared[who]) - 1))
        for who in circle
        for i0, i1 in permutations(shared[who], 2)
    }


def test_companions_share_two_items(tiny_graph):
    assert companions(tiny_graph, 0).tolist() == [1, 2, 3]
    assert companions(tiny_graph, 4).tolist() == [3]
    assert companions(tiny_graph, 5).tolist() == []


def test_companions_on_a_generated_graph_against_sets(dataset):
    graph = build_graph(dataset)
    rated = [set(graph.items_of(user).tolist()) for user in range(graph.n_users)]
    for user in range(graph.n_users):
        expected = [w for w in range(graph.n_users) if w != user and len(rated[w] & rated[user]) > 1]
        assert companions(graph, user).tolist() == expected


@pytest.mark.parametrize("count, draws", [(1, 6000), (3, 2000), (5, 1200)])
def test_distribution_is_formula_1(tiny_graph, tiny_ratings, count, draws):
    expected = by_brute_force(tiny_ratings, 0)
    assert len(expected) == 2 + 6 + 12
    rng = np.random.default_rng(0)
    # One chain of each call, since the chains of a call have distinct companions.
    seen = Counter()
    for draw in range(draws):
        chain = sample_chains(tiny_graph, 0, count, rng)[draw % count]
        seen[chain.peer, chain.i0, chain.i1] += 1
    assert set(seen) <= set(expected)
    observed = [seen[key] for key in expected]
    assert chisquare(observed, [draws * p for p in expected.values()]).pvalue > 1e-3


def test_every_chain_is_closed_and_carries_the_logs_ratings(dataset):
    graph, log = build_graph(dataset), dataset.interactions
    rating = {}
    for user in range(log.n_users):
        rows = dataset.history(user)
        rating |= {(user, int(i)): float(r) for i, r in zip(log.item[rows], log.rating[rows], strict=True)}
    used = set()
    for user in range(log.n_users):
        for chain in sample_chains(graph, user, 5, np.random.default_rng([0, user])):
            assert chain.user == user != chain.peer
            assert chain.i0 != chain.i1
            assert (chain.r00, chain.r01) == (rating[user, chain.i0], rating[user, chain.i1])
            assert chain.r10 == rating[chain.peer, chain.i0]
            assert chain.r11 == rating[chain.peer, chain.i1]
            used |= {chain.r00, chain.r10}
    assert used == {1, 2, 3, 4, 5}  # disliked items close chains too


def test_chain_items_are_never_candidates(dataset):
    graph, split = build_graph(dataset), dataset.split
    for user in np.concatenate(list(split.users.values())):
        rng = np.random.default_rng([0, int(user)])
        for chain in sample_chains(graph, int(user), 5, rng):
            assert not {chain.i0, chain.i1} & set(split.candidates[user].tolist())


def test_companions_are_distinct_while_they_last(tiny_graph, dataset):
    graph = build_graph(dataset)
    for user in range(graph.n_users):
        chains = sample_chains(graph, user, 5, np.random.default_rng(user))
        circle = len(companions(graph, user))
        assert len(chains) == (5 if circle else 0)
        assert len({chain.peer for chain in chains}) == min(5, circle)
    again = sample_chains(tiny_graph, 0, 7, np.random.default_rng(0))
    assert sorted(Counter(chain.peer for chain in again).values()) == [2, 2, 3]


def test_no_companion_no_chain(tiny_graph):
    assert sample_chains(tiny_graph, 5, 3, np.random.default_rng(0)) == []
    assert sample_chains(tiny_graph, 0, 0, np.random.default_rng(0)) == []


def test_equal_seeds_equal_chains(dataset):
    graph = build_graph(dataset)
    user = int(dataset.split.users["evaluation"][0])
    first, again, other = (
        sample_chains(graph, user, 5, np.random.default_rng([seed, user])) for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


def test_fields_are_plain_numbers(tiny_graph):
    (chain,) = sample_chains(tiny_graph, 0, 1, np.random.default_rng(0))
    assert type(chain.peer) is type(chain.i0) is type(chain.i1) is int
    assert type(chain.r00) is type(chain.r10) is type(chain.r11) is type(chain.r01) is float
