"""Models on the user-item graph against the same formulas with dense matrices."""

import jax
import numpy as np
import pytest

from r2rec_jax.baselines.edges import PairBatches, edges
from r2rec_jax.baselines.graphsage import GraphSAGE
from r2rec_jax.baselines.lightgcn import LightGCN
from r2rec_jax.baselines.ngcf import NGCF


@pytest.fixture(scope="module")
def graph(dataset):
    return edges(dataset, liked=False)


@pytest.fixture(scope="module")
def adjacency(dataset, seen) -> np.ndarray:
    """[users + items, users + items], symmetric, by loops."""
    users, items = dataset.interactions.n_users, dataset.interactions.n_items
    full = np.zeros((users + items, users + items))
    for user, own in enumerate(seen):
        for item in own:
            full[user, users + item] = full[users + item, user] = 1
    return full


def normalised(adjacency: np.ndarray) -> np.ndarray:
    scale = np.maximum(adjacency.sum(axis=1), 1) ** -0.5
    return scale[:, None] * adjacency * scale


def embed(module, graph) -> tuple[dict, np.ndarray, np.ndarray]:
    """Random parameters, the nodes' first embeddings and what the module makes of them, users first."""
    params = module.init(jax.random.key(1), graph)["params"]
    found = np.concatenate(module.apply({"params": params}, graph))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    return params, np.concatenate([params["user_embedding"], params["item_embedding"]]), found


def test_lightgcn_is_the_mean_of_powers_of_the_normalised_adjacency(graph, adjacency):
    _, nodes, found = embed(LightGCN(8, 3), graph)
    step = normalised(adjacency)
    expected = sum(np.linalg.matrix_power(step, k) @ nodes for k in range(4)) / 4
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ngcf_by_its_matrix_form(graph, adjacency):
    params, nodes, found = embed(NGCF(8, 2, 0.0), graph)
    step, layers = normalised(adjacency), [nodes]
    for k in range(2):
        total, product = params[f"Dense_{2 * k}"], params[f"Dense_{2 * k + 1}"]
        near = step @ nodes
        both = (nodes + near) @ total["kernel"] + total["bias"]
        both += (near * nodes) @ product["kernel"] + product["bias"]
        nodes = np.where(both > 0, both, 0.2 * both)
        layers.append(nodes / np.linalg.norm(nodes, axis=1, keepdims=True))
    np.testing.assert_allclose(found, np.concatenate(layers, axis=1), atol=1e-5)


def test_graphsage_by_loops_over_neighbours(graph, adjacency, dataset):
    params, nodes, found = embed(GraphSAGE(8, 2, 0.0), graph)
    users = dataset.interactions.n_users
    for k in range(2):
        after = np.zeros_like(nodes)
        for node, row in enumerate(adjacency):
            near = nodes[row > 0].mean(axis=0) if row.any() else np.zeros(8)
            dense = params[f"Dense_{2 * k + (node >= users)}"]
            after[node] = np.concatenate([nodes[node], near]) @ dense["kernel"] + dense["bias"]
        nodes = np.maximum(after, 0) if k == 0 else after
    np.testing.assert_allclose(found, nodes, atol=1e-5)


def test_liked_edges_are_likes(dataset):
    graph, log = edges(dataset, liked=True), dataset.interactions
    expected = [
        (user, int(log.item[row]))
        for user in range(log.n_users)
        for row in range(log.offsets[user], dataset.split.cutoff[user])
        if log.rating[row] > 3
    ]
    assert list(zip(graph.user.tolist(), graph.item.tolist(), strict=True)) == expected


def test_an_epoch_of_pairs_is_every_edge_once_and_no_negative_is_one(graph, seen):
    batches = PairBatches(graph, batch_size=1, seed=2)
    drawn = [batches[k] for k in range(batches.per_epoch)]
    pairs = [(int(batch["user"][0]), int(batch["positive"][0])) for batch in drawn]
    assert sorted(pairs) == [(user, item) for user, own in enumerate(seen) for item in sorted(own)]
    assert all(int(batch["negative"][0]) not in seen[int(batch["user"][0])] for batch in drawn)
    # Uniform over what a user lacks: 4 standard deviations of the count of each item.
    many = PairBatches(graph, batch_size=len(graph.user), seed=2)
    rounds = [many[k] for k in range(200)]
    user = np.concatenate([batch["user"] for batch in rounds])
    negative = np.concatenate([batch["negative"] for batch in rounds])
    count = np.bincount(negative[user == 0], minlength=30)
    lacking = [item for item in range(30) if item not in seen[0]]
    mean = (user == 0).sum() / len(lacking)
    assert (np.abs(count[lacking] - mean) < 4 * mean**0.5).all() and count.sum() == count[lacking].sum()


def test_what_comes_after_the_cutoffs_is_no_edge(dataset, changed_after_cutoffs):
    for liked in (False, True):
        one, other = (edges(data, liked=liked) for data in (dataset, changed_after_cutoffs))
        assert (one.user == other.user).all() and (one.item == other.item).all()
