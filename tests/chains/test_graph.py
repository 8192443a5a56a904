import numpy as np
import pytest
from scipy.sparse import csr_matrix

from r2rec_jax.chains import graph as graph_module
from r2rec_jax.chains.graph import MAX_SPAN, build_graph, compress
from r2rec_jax.runtime.errors import UserError


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


def test_time_of_an_edge_and_the_clock(timed):
    graph, edges = timed
    for (user, item), (_, time) in edges.items():
        assert graph.time(user, item) == graph.clock(time)
    missing = next((u, i) for u in range(9) for i in range(10) if (u, i) not in edges)
    with pytest.raises(KeyError):
        graph.time(*missing)
    times = [time for _, time in edges.values()]
    assert graph.clock(min(times) - 5) == 0
    assert graph.clock(None) > MAX_SPAN >= graph.clock(max(times))


def random_log(users, items, edges, seed):
    """Distinct edges ascending by user, items of a user in no order; user 0 has rated everything."""
    rng = np.random.default_rng(seed)
    pair = np.unique(np.append(np.arange(items), rng.integers(users * items, size=edges)))
    pair = rng.permutation(pair)
    pair = pair[np.argsort(pair // items, kind="stable")]
    user, item = (pair // items).astype(np.int32), (pair % items).astype(np.int32)
    rating = rng.integers(1, 11, len(pair)).astype(np.float32) / 2
    return user, item, rating, rng.integers(10**9, 2 * 10**9, len(pair))


@pytest.mark.parametrize("compile_above", [0, 1 << 30])
def test_both_ways_to_build_agree_with_scipy(monkeypatch, compile_above):
    monkeypatch.setattr(graph_module, "COMPILE_ABOVE", compile_above)
    users, items = 301, 83
    user, item, rating, time = random_log(users, items, 2000, seed=0)
    graph = compress(user, item, rating, time, users, items)
    for values, ours in ((rating, graph.item_ratings), (time - time.min(), graph.item_times)):
        backward = csr_matrix((values, (item, user)), (items, users))
        backward.sort_indices()
        assert (ours == backward.data).all()
        assert (graph.item_offsets == backward.indptr).all()
        assert (graph.item_users == backward.indices).all()
    forward = csr_matrix((rating, (user, item)), (users, items))
    forward.sort_indices()
    assert (graph.user_offsets == forward.indptr).all()
    assert (graph.user_items == forward.indices).all()
    assert (graph.user_ratings == forward.data).all()
    assert graph.item_edges.dtype == np.uint32


@pytest.mark.parametrize("compile_above", [0, 1 << 30])
def test_a_log_without_rows_makes_an_empty_graph(monkeypatch, compile_above):
    monkeypatch.setattr(graph_module, "COMPILE_ABOVE", compile_above - 1)
    user = item = np.empty(0, np.int32)
    graph = compress(user, item, np.empty(0, np.float32), np.empty(0, np.int64), 3, 2)
    assert graph.user_offsets.tolist() == [0] * 4 and graph.item_offsets.tolist() == [0] * 3
    assert graph.items_of(2).tolist() == []


def test_an_edge_and_direction_takes_at_most_12_bytes():
    """At the proportions of 29M edges, 10M users, 4M items, offsets included."""
    user, item, rating, time = random_log(10_000, 4_000, 30_000, seed=1)
    user, item, rating, time = (column[4_000:33_000] for column in (user, item, rating, time))
    graph = compress(user, item, rating, time, 10_000, 4_000)
    assert graph.nbytes / (2 * len(user)) <= 12


def test_times_that_are_no_seconds_are_refused():
    ends = np.array([0, MAX_SPAN + 1])
    columns = (np.arange(2, dtype=np.int32), np.zeros(2, np.int32), np.ones(2, np.float32))
    with pytest.raises(UserError, match="seconds"):
        compress(*columns, ends, 2, 1)
    assert compress(*columns, ends - [0, 1], 2, 1).item_times.tolist() == [0, MAX_SPAN]
