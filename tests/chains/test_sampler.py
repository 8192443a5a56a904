import dataclasses
from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy.stats import chisquare

from r2rec_jax.chains import graph as graph_module
from r2rec_jax.chains import sampler
from r2rec_jax.chains.companions import companions, weights
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.chains.sampler import sample_chains
from r2rec_jax.prompts.ranking_prompt import make_record
from r2rec_jax.runtime.errors import UserError
from tests.chains import formula


@pytest.fixture(params=["listed", "proposed", "both"])
def way(request, monkeypatch):
    """How companions are drawn: from a list, by proposals, or by few proposals and then from a list."""
    if request.param != "listed":
        monkeypatch.setattr(graph_module, "COMPILE_ABOVE", 0)
        monkeypatch.setattr(sampler, "ENUMERATE", 0)
        monkeypatch.setattr(sampler, "ROUNDS", 2)
    if request.param == "both":
        monkeypatch.setattr(sampler, "PROPOSALS", 3)
    return request.param


def assert_distributed(seen, expected, draws):
    assert set(seen) <= set(expected)
    observed = [seen[key] for key in expected]
    assert chisquare(observed, [draws * p for p in expected.values()]).pvalue > 1e-3


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("count, draws", [(1, 3000), (3, 1500), (5, 1200)])
def test_distribution_is_formula_1(tiny_graph, tiny_ratings, count, draws):
    edges = {pair: (rating, 0) for pair, rating in tiny_ratings.items()}
    expected = formula.chains(edges, 0)
    assert len(expected) == 2 + 6 + 12
    assert expected[(1,), (0, 1)] == pytest.approx(1 / 3 / 2)
    assert expected[(2,), (3, 1)] == pytest.approx(1 / 3 / 6)
    rng = np.random.default_rng(0)
    # One chain of each call, since the chains of a call have distinct companions.
    seen = Counter()
    for draw in range(draws):
        chain = sample_chains(tiny_graph, 0, count, rng)[draw % count]
        seen[chain.peers, chain.items] += 1
    assert_distributed(seen, expected, draws)


# Longer chains are always listed.
@pytest.mark.parametrize(
    ("way", "length"),
    [("listed", 1), ("listed", 2), ("listed", 3), ("proposed", 1), ("both", 1)],
    indirect=["way"],
)
@pytest.mark.usefixtures("way")
def test_distribution_before_a_time_against_enumeration(timed, length):
    graph, edges = timed
    before, candidates = int(np.quantile([time for _, time in edges.values()], 0.75)), ()
    user = max(range(9), key=lambda user: len(formula.chains(edges, user, 1, before)))
    circle = formula.circle(edges, user, before)
    if length > 1:  # an item that only companions have rated
        candidates = [min(set(range(10)) - {item for who, item in edges if who == user})]
    expected = formula.chains(edges, user, length, before, candidates)
    everything = formula.chains(edges, user, length, before=None if length == 1 else before)
    assert 3 <= len(circle) < len(formula.circle(edges, user)) and len(expected) < len(everything)
    draws, rng, seen = 2000 if length == 1 else 1000, np.random.default_rng(2), Counter()
    options = {"length": length, "before": before, "candidates": candidates}
    for _ in range(draws):
        (chain,) = sample_chains(graph, user, 1, rng, **options)
        seen[chain.peers, chain.items] += 1
        assert_closed(chain, edges, before)
    assert set(seen) <= set(expected)
    # Of longer chains the companions; the next test looks at the items given them, in no thin cells.
    pooled, found = defaultdict(float), Counter()
    for (peers, items), probability in expected.items():
        cell = (peers, items) if length == 1 else peers
        pooled[cell] += probability
        found[cell] += seen[peers, items]
    assert_distributed(found, pooled, draws)


def assert_closed(chain, edges, before=None):
    """Every rating is the log's, everybody and everything distinct, peers' ratings early enough."""
    assert len({chain.user, *chain.peers}) == len(chain.peers) + 1 == len(set(chain.items))
    i0, *others = chain.items
    hops = [(chain.user, i0, chain.r00), (chain.peer, i0, chain.r10), (chain.peer, chain.i1, chain.r11)]
    item = chain.i1
    for link in chain.more:
        hops += [(link.peer, item, link.rating), (link.peer, link.item, link.next_rating)]
        item = link.item
    hops.append((chain.user, others[-1], chain.r01))
    for who, item, rating in hops:
        assert edges[who, item][0] == rating
        assert who == chain.user or before is None or edges[who, item][1] < before


def test_items_of_a_long_chain_are_uniform_given_its_companions(timed):
    graph, edges = timed
    expected = formula.chains(edges, 0, 2)
    sizes = Counter(peers for peers, _ in expected)
    peers = min((peers for peers in sizes if sizes[peers] > 10), key=sizes.get)
    probability = {items: 1 / sizes[peers] for who, items in expected if who == peers}
    rng, seen, draws = np.random.default_rng(2), Counter(), 1000
    for _ in range(draws):
        seen[sampler._close(graph, (0, *peers), graph.clock(None), (), rng).items] += 1
    assert 10 < len(probability) < 50
    assert_distributed(seen, probability, draws)


def test_tuples_of_companions_are_distinct_while_they_last(timed):
    graph, edges = timed
    tuples = {peers for peers, _ in formula.chains(edges, 0, 2)}
    count = len(tuples) + 2
    chains = sample_chains(graph, 0, count, np.random.default_rng(0), length=2)
    often = Counter(chain.peers for chain in chains)
    assert set(often) == tuples and sorted(often.values())[-3:] == [1, 2, 2]


def test_a_loop_needs_distinct_items():
    a, b, ab = np.array([1]), np.array([2]), np.array([1, 2])
    assert sampler._closes([ab, a, b][:2]) and sampler._closes([a, ab])
    assert (
        not sampler._closes([a, a]) and not sampler._closes([ab, ab, ab]) and not sampler._closes([a, b[:0]])
    )
    assert sampler._closes([ab, np.array([1, 2, 3]), a])


@pytest.mark.parametrize("selection", ["similar", "candidate_aware"])
def test_weighted_companions_are_drawn_in_proportion(timed, selection):
    graph, edges = timed
    user, candidates = 0, np.array([item for item in range(10) if (0, item) not in edges])
    peers = companions(graph, user)
    weight = weights(graph, user, peers, selection, candidates, graph.clock(None))
    assert (weight > 0).sum() >= 3 and np.ptp(weight) > 0
    first, second, draws = Counter(), Counter(), 1500
    rng = np.random.default_rng(4)
    for _ in range(draws):
        one, two = sample_chains(graph, user, 2, rng, selection=selection, candidates=candidates)
        first[one.peer] += 1
        second[two.peer] += 1
    share = dict(zip(peers.tolist(), weight / weight.sum(), strict=True))
    expected = {peer: p for peer, p in share.items() if p}
    assert_distributed(first, expected, draws)
    # Drawing without replacement, in proportion to weight among those left.
    later = {q: sum(share[p] * share[q] / (1 - share[p]) for p in expected if p != q) for q in expected}
    assert_distributed(second, later, draws)


def test_weightless_companions_come_last(timed):
    graph, _ = timed
    peers = companions(graph, 0)
    weight = np.where(peers == peers[1], 1.0, 0.0)
    rng = np.random.default_rng(0)
    draws = [sampler._draw(peers, weight, len(peers), rng) for _ in range(50)]
    assert all(draw[0] == peers[1] and sorted(draw) == peers.tolist() for draw in draws)
    assert len({int(draw[1]) for draw in draws}) == len(peers) - 1


@pytest.mark.parametrize("options", [{"selection": "nearest"}, {"length": 0}])
def test_unknown_options_are_refused(tiny_graph, options):
    with pytest.raises(UserError):
        sample_chains(tiny_graph, 0, 1, np.random.default_rng(0), **options)


@pytest.mark.usefixtures("way")
def test_who_has_no_companions_has_no_chain(tiny_graph):
    def alone(users, length):
        draw = np.random.default_rng(0)
        return [user for user in users if not sample_chains(tiny_graph, user, 1, draw, length=length)]

    assert len(alone(range(6), 1)) == 1
    assert len(alone((0, 4, 5), 2)) == 2


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


@pytest.mark.usefixtures("way")
def test_fields_are_plain_numbers(tiny_graph):
    (chain,) = sample_chains(tiny_graph, 0, 1, np.random.default_rng(0))
    assert type(chain.peer) is type(chain.i0) is type(chain.i1) is int
    assert type(chain.r00) is type(chain.r10) is type(chain.r11) is type(chain.r01) is float


@pytest.mark.parametrize("selection", ["uniform", "similar", "candidate_aware"])
@pytest.mark.parametrize("length", [1, 2])
def test_no_selection_knows_which_candidate_is_the_truth(dataset, selection, length):
    """Another candidate declared the truth, or the candidates reordered: the prompt's chains stay."""
    graph, log, moved = build_graph(dataset), dataset.interactions, 0
    rng = np.random.default_rng(0)
    candidates = dataset.split.candidates
    truth = dataset.split.truth.copy()
    truth[candidates.users] = candidates.rows[:, 0]
    shuffled = dataclasses.replace(candidates, rows=rng.permuted(candidates.rows, axis=1))
    others = dataclasses.replace(dataset.split, truth=truth, candidates=shuffled)
    permuted = dataclasses.replace(dataset, split=others)
    for user in np.concatenate(list(dataset.split.users.values())).tolist():
        options = {"chains": 3, "likes": 2, "seed": 1, "length": length, "selection": selection}
        record = make_record(dataset, graph, user, **options)
        again = make_record(permuted, graph, user, **options)
        assert record.chains == again.chains and len(record.chains) == 3
        moved += record.truth != again.truth
        shown = {item for chain in record.chains for item in chain.items}
        assert not shown & set(record.candidates.tolist())
        assert length > 1 or shown <= set(log.item[dataset.history(user)].tolist())
    assert moved > 20


def test_selections_differ(dataset):
    graph, users = build_graph(dataset), dataset.split.users["evaluation"].tolist()
    drawn = {
        selection: [
            make_record(dataset, graph, user, chains=3, likes=2, seed=1, selection=selection).chains
            for user in users
        ]
        for selection in ("uniform", "similar", "candidate_aware")
    }
    assert drawn["uniform"] != drawn["similar"] != drawn["candidate_aware"] != drawn["uniform"]


def test_a_record_before_the_target_time_shows_nothing_later(dataset):
    graph, log, differ = build_graph(dataset), dataset.interactions, 0
    time = dict(zip(zip(log.user.tolist(), log.item.tolist(), strict=True), log.time.tolist(), strict=True))
    for user in dataset.split.users["evaluation"].tolist():
        options = {"chains": 5, "likes": 2, "seed": 1}
        early = make_record(dataset, graph, user, **options, before_target_time=True).chains
        for chain in early:
            assert max(time[chain.peer, item] for item in chain.items) < dataset.truth_time(user)
        differ += early != make_record(dataset, graph, user, **options).chains
    assert differ
