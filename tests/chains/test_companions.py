import numpy as np
import pytest

from r2rec_jax.chains.companions import SHRINKAGE, companions, weights
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.runtime.errors import UserError
from tests.chains import formula


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


def test_companions_before_every_time_against_sets(timed):
    graph, edges = timed
    sizes = set()
    for before in sorted(time for _, time in edges.values()):
        for user in range(graph.n_users):
            found = companions(graph, user, graph.clock(before)).tolist()
            assert found == sorted(formula.circle(edges, user, before))
            sizes.add(len(found))
    assert sizes >= {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("quantile", [0.6, 1.1])
def test_similar_is_the_shrunk_mean_agreement(timed, quantile):
    graph, edges = timed
    times = sorted(time for _, time in edges.values())
    before = times[int(quantile * len(times))] if quantile < 1 else None
    for user in range(graph.n_users):
        peers = companions(graph, user, graph.clock(before))
        expected = []
        for peer in peers.tolist():
            shared = formula.circle(edges, user, before)[peer]
            agreement = [1 - abs(edges[user, i][0] - edges[peer, i][0]) / 2 for i in shared]
            expected.append(max(0, sum(agreement)) / (len(shared) + SHRINKAGE))
        found = weights(graph, user, peers, "similar", np.empty(0, int), graph.clock(before))
        np.testing.assert_allclose(found, expected)


def test_every_candidate_gives_its_raters_one_unit_together(timed):
    graph, edges = timed
    before = sorted(time for _, time in edges.values())[-20]
    user, peers = 0, companions(graph, 0, graph.clock(before))
    candidates = [item for item in range(10) if (user, item) not in edges]
    expected = np.zeros(len(peers))
    for item in candidates:
        rated = [(p, item) in edges and edges[p, item][1] < before for p in peers.tolist()]
        expected += np.array(rated) / max(1, sum(rated))
    assert expected.max() > 0
    clock = graph.clock(before)
    found = weights(graph, user, peers, "candidate_aware", np.array(candidates), clock)
    np.testing.assert_allclose(found, expected)
    again = weights(graph, user, peers, "candidate_aware", np.array(candidates[::-1]), clock)
    assert (found == again).all()


def test_an_unknown_selection_is_refused(tiny_graph):
    with pytest.raises(UserError, match="candidate_aware"):
        weights(tiny_graph, 0, np.array([1]), "best", np.empty(0, int), 0)
