import numpy as np
import pytest

from r2rec_jax.chains.graph import build_graph


def visible_edges(dataset):
    log = dataset.interactions
    edges = {}
    for user in range(log.n_users):
        rows = dataset.history(user)
        for row in range(rows.start, rows.stop):
            edges[user, int(log.item[row])] = float(log.rating[row])
    return edges


def test_both_directions_hold_exactly_the_rows_before_the_cutoffs(dataset):
    graph, expected = build_graph(dataset), visible_edges(dataset)
    forward, backward = {}, {}
    for user in range(graph.n_users):
        start = graph.user_offsets[user]
        for place, item in enumerate(graph.items_of(user)):
            forward[user, int(item)] = float(graph.user_ratings[start + place])
    for item in range(dataset.interactions.n_items):
        start = graph.item_offsets[item]
        for place, user in enumerate(graph.users_of(item)):
            backward[int(user), item] = float(graph.item_ratings[start + place])
    assert forward == expected
    assert backward == expected
    assert len(graph.user_items) == len(graph.item_users) == len(expected)


def test_no_held_out_edge_is_in_the_graph(dataset):
    graph = build_graph(dataset)
    for user in np.flatnonzero(dataset.split.truth >= 0):
        assert dataset.split.truth[user] not in graph.items_of(user)


def test_a_user_without_truth_keeps_every_row(dataset):
    log, graph = dataset.interactions, build_graph(dataset)
    without = np.flatnonzero(dataset.split.truth < 0)
    assert len(without)
    for user in without:
        rows = slice(log.offsets[user], log.offsets[user + 1])
        assert graph.items_of(user).tolist() == sorted(log.item[rows].tolist())


def test_neighbours_ascend_and_types_are_as_stated(dataset):
    graph = build_graph(dataset)
    for user in range(graph.n_users):
        assert (np.diff(graph.items_of(user)) > 0).all()
    for item in range(dataset.interactions.n_items):
        assert (np.diff(graph.users_of(item)) > 0).all()
    assert graph.user_offsets.dtype == graph.item_offsets.dtype == np.int64
    assert graph.user_items.dtype == graph.item_users.dtype == np.int32
    assert graph.user_ratings.dtype == graph.item_ratings.dtype == np.float32


def test_rating_of_an_edge(tiny_graph, tiny_ratings):
    for (user, item), rating in tiny_ratings.items():
        assert tiny_graph.rating(user, item) == rating
    with pytest.raises(KeyError):
        tiny_graph.rating(5, 0)
