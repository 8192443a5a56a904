from collections import Counter

import numpy as np
import pytest
from numba import njit
from scipy.stats import chisquare

from r2rec_jax.chains import proposals
from r2rec_jax.chains.graph import MAX_SPAN, compress
from r2rec_jax.chains.proposals import propose_companions
from tests.chains import formula


def found(graph, user, places):
    """(companion, items) of accepted proposals, read from the places of their edges."""
    owner = np.searchsorted(graph.user_offsets, places, side="right") - 1
    items = graph.user_items[places]
    assert (owner[:, 0] == user).all() and (owner[:, 3] == user).all()
    assert (owner[:, 1] == owner[:, 2]).all()
    assert (items[:, 0] == items[:, 1]).all() and (items[:, 2] == items[:, 3]).all()
    return zip(owner[:, 1].tolist(), items[:, 0].tolist(), items[:, 2].tolist(), strict=True)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("search_from", [8, 0])
def test_accepted_proposals_follow_formula_1(timed, early, search_from, monkeypatch):
    graph, edges = timed
    before = int(np.quantile([time for _, time in edges.values()], 0.75)) if early else None
    monkeypatch.setattr(proposals, "SEARCH_FROM", search_from)
    if search_from == 0:  # compiled anew: globals are constants to the compiler
        for name in ("_shared", "_propose"):
            monkeypatch.setattr(proposals, name, _recompiled(getattr(proposals, name)))
    user = max(range(9), key=lambda user: len(formula.chains(edges, user, 1, before)))
    expected = formula.chains(edges, user, 1, before)
    users = np.full(30_000, user, np.int32)
    peers, places = propose_companions(graph, users, 5, before=graph.clock(before))
    accepted = peers >= 0
    seen = Counter(((peer,), (i0, i1)) for peer, i0, i1 in found(graph, user, places[accepted]))
    assert Counter(peers[accepted].tolist()) == Counter(key[0][0] for key in seen.elements())
    assert set(seen) <= set(expected)
    draws = accepted.sum()
    assert draws > 5_000
    observed = [seen[key] for key in expected]
    assert chisquare(observed, [draws * p for p in expected.values()]).pvalue > 1e-3


def _recompiled(function):
    return njit(nogil=True)(function.py_func)


def test_rows_depend_on_the_key_and_their_number_alone(timed):
    graph, _ = timed
    users = np.random.default_rng(0).integers(graph.n_users, size=1000).astype(np.int32)
    peers, _ = propose_companions(graph, users, 7)
    for threads in (2, 3):
        assert (propose_companions(graph, users, 7, threads=threads)[0] == peers).all()
    assert (propose_companions(graph, users[130:], 7, first=130)[0] == peers[130:]).all()
    assert (propose_companions(graph, users, 8)[0] != peers).any()


def test_users_with_fewer_than_two_items_or_no_peer_are_rejected():
    user, item = np.array([0, 2, 2, 3], np.int32), np.array([0, 0, 1, 2], np.int32)
    graph = compress(user, item, np.ones(4, np.float32), np.arange(4), 5, 3)
    peers, _ = propose_companions(graph, np.repeat(np.arange(5, dtype=np.int32), 40), 0)
    assert (peers == -1).all()


def test_uniform_numbers_are_splitmix64():
    """Against the generator's definition in unbounded integers."""

    def reference(stream, number):
        bits, mask = (stream + (number + 1) * 0x9E3779B97F4A7C15) % 2**64, 2**64
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % mask
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % mask
        return ((bits ^ bits >> 31) >> 11) / 2**53

    # The first output of SplitMix64 from seed 0 is a published constant.
    assert reference(0, 0) == (0xE220A8397B1DCDAF >> 11) / 2**53
    for stream, row, draw in ((0, 0, 0), (2**64 - 1, 5, 3), (12345, 10**9, 2)):
        assert proposals._uniform(np.uint64(stream), row, draw) == reference(stream, 4 * row + draw)


def test_clock_of_the_default_is_after_every_time(timed):
    graph, _ = timed
    users = np.zeros(100, np.int32)
    late, _ = propose_companions(graph, users, 1, before=MAX_SPAN)
    assert (late == propose_companions(graph, users, 1)[0]).all()
