"""A generated data set, and a graph small enough to enumerate by hand."""

import numpy as np
import pytest

from r2rec_jax.chains.graph import Graph, build_graph, compress
from r2rec_jax.data.generate import generate
from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import Split, split


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    log, catalog = generate(seed=4, users=60, items=48, ratings_per_user=12)
    sizes = {"sft": 10, "grpo": 10, "validation": 5, "evaluation": 20}
    return Dataset("small", log, catalog, split(log, seed=0, sizes=sizes))


@pytest.fixture(scope="session")
def tiny_ratings() -> dict[tuple[int, int], float]:
    """User 0's companions share 2, 3 and 4 items with it; user 4 shares one, user 5 none."""
    rated = {
        0: [0, 1, 2, 3],
        1: [0, 1, 7],
        2: [1, 2, 3, 6],
        3: [0, 1, 2, 3, 5],
        4: [3, 4, 5],
        5: [8],
    }
    return {(user, item): float(1 + (3 * user + item) % 5) for user in rated for item in rated[user]}


@pytest.fixture(scope="session")
def tiny_graph(tiny_ratings) -> Graph:
    user, item = np.array(list(tiny_ratings)).T
    rating = np.array(list(tiny_ratings.values()))
    log = Interactions.from_log(user, item, rating, np.arange(len(user))[::-1], 6, 9)
    nobody = np.full(6, -1, np.int32)
    protocol = Split({}, nobody, log.offsets[1:], np.full((6, 2), -1, np.int32))
    catalog = Catalog([f"T{i}" for i in range(9)], np.zeros(9, np.int32), [()] * 9, [{}] * 6)
    return build_graph(Dataset("tiny", log, catalog, protocol))


@pytest.fixture(scope="session")
def timed() -> tuple[Graph, dict[tuple[int, int], tuple[float, int]]]:
    """A dense graph of 9 users and 10 items, and its edges: (user, item) -> (rating, time)."""
    rng = np.random.default_rng(3)
    user, item = np.nonzero(rng.random((9, 10)) < 0.55)
    rating = rng.integers(1, 6, len(user)).astype(np.float32)
    time = 1_000_000_000 + rng.permutation(len(user)) * 60
    edges = zip(zip(user.tolist(), item.tolist(), strict=True), zip(rating, time, strict=True), strict=True)
    return compress(user.astype(np.int32), item.astype(np.int32), rating, time, 9, 10), {
        pair: (float(rating), int(time)) for pair, (rating, time) in edges
    }
