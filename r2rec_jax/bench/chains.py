"""Chain sampling on a large sparse graph: four implementations of proposals, and building the graph.

The graph is random with power-law degrees on both sides (seeded). It has no communities, so nearly all
proposals are rejected, as for most users of a shop. A chain step is a hop along an edge. A proposal makes
four hops around the loop, or two if the drawn edge leads back to the user. All implementations make the same
proposals, from users with at least two items.
"""

import os
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_matrix

from r2rec_jax.bench.peers.chain_proposals import PlainNumba, PlainPython, Vectorised
from r2rec_jax.bench.result import Row, paired_seconds, row
from r2rec_jax.chains.graph import Graph, compress
from r2rec_jax.chains.proposals import propose_companions

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
FULL, QUICK = (29_000_000, 10_000_000, 4_000_000), (200_000, 70_000, 28_000)
GOAL_NS = 25.0  # nanoseconds per step: 40M steps/s
MOST_BYTES = 12.0


def run(peers: str | None, quick: bool) -> list[Row]:  # noqa: ARG001 - all peers run in this process
    return measure(*(QUICK if quick else FULL), repeats=3 if quick else 7)


def measure(edges: int, users: int, items: int, repeats: int) -> list[Row]:
    """Runs the suite on a graph of this size."""
    columns = power_law_log(edges, users, items, seed=0)
    build, scipy_build = _build_seconds(columns, users, items, repeats)
    graph = compress(*columns, users, items)
    sizes = f"{edges / 1e6:g}M edges, {users / 1e6:g}M users, {items / 1e6:g}M items"
    rows = [
        row(f"CSR both ways with times, scipy: one way without; {sizes}", build, scipy_build, "s", 1),
        row("graph, bytes an edge and direction", [graph.nbytes / 2 / edges], [MOST_BYTES], "B", 1),
    ]
    starts = np.random.default_rng(1).permutation(np.flatnonzero(np.diff(graph.user_offsets) >= 2))
    starts = starts.astype(np.int32)[: 1 << 22]
    hops, cores = _hops(graph, starts[: 1 << 18]), len(os.sched_getaffinity(0))

    def ours(threads: int) -> Callable[[int], object]:
        return lambda count: propose_companions(graph, starts[:count], 0, threads=threads)

    def nanoseconds(threads: int, propose: Callable, count: int) -> tuple[list[float], list[float]]:
        """Nanoseconds per step of ours with all proposals, and of the peer with the first `count`."""
        peers_starts, our_call = starts[:count], ours(threads)
        seconds = paired_seconds(
            lambda: our_call(len(starts)), lambda: propose(peers_starts, 0), repeats=repeats
        )
        made = (len(starts), len(peers_starts))
        return tuple(
            [second / number / hops * 1e9 for second in taken]
            for taken, number in zip(seconds, made, strict=True)
        )

    plain = PlainNumba(graph)
    contests = (
        ("plain Python", cores, PlainPython(graph), 1 << 15, 100),
        ("numpy", cores, Vectorised(graph), 1 << 19, 3),
        ("plain numba", cores, plain, 1 << 20, 4),
        ("plain numba, ours on one core too", 1, plain, 1 << 20, None),
    )
    ours_on_all = []
    for name, threads, propose, count, target in contests:
        our_ns, peer_ns = nanoseconds(threads, propose, count)
        rows.append(row(f"chain step on {threads} cores against {name}", our_ns, peer_ns, "ns", target))
        ours_on_all += our_ns if threads == cores else []
    rows.append(row(f"chain step on {cores} cores against 40M steps/s", ours_on_all, [GOAL_NS], "ns", 1))
    return rows


def power_law_log(edges: int, users: int, items: int, seed: int) -> Columns:
    """Columns user, item, rating, time [edges] of a random log with distinct edges, sorted by user.

    The edges of a user are in random order. The probability of the user with rank r is proportional to
    r^(-1/2), that of an item to r^(-2/3).
    """
    rng = np.random.default_rng(seed)
    pair = np.empty(0, np.int64)
    while len(pair) < edges:
        draws = int(1.1 * (edges - len(pair))) + 1000
        rank = (
            (users * rng.random(draws) ** 2).astype(np.int64),
            (items * rng.random(draws) ** 3).astype(np.int64),
        )
        pair = np.unique(np.append(pair, rank[0] * items + rank[1]))
    pair = np.sort(rng.choice(pair, edges, replace=False, shuffle=False))
    # Random numbers for users and items, independent of popularity.
    user = rng.permutation(users)[pair // items].astype(np.int32)
    order = np.argsort(user, kind="stable")
    item = rng.permutation(items)[pair[order] % items].astype(np.int32)
    rating = rng.integers(1, 6, edges).astype(np.float32)
    return user[order], item, rating, rng.integers(10**9, 2 * 10**9, edges)


def _build_seconds(columns: Columns, users: int, items: int, repeats: int):
    user, item, rating, _ = columns
    return paired_seconds(
        lambda: compress(*columns, users, items),
        lambda: csr_matrix((rating, (user, item)), (users, items)),
        repeats=repeats,
    )


def _hops(graph: Graph, starts: np.ndarray) -> float:
    """The mean number of hops of a proposal: 2 if the drawn edge is the user's own, else 4."""
    items = [graph.items_of(user) for user in starts]
    own = [0.0] * len(starts)
    for k, row_items in enumerate(items):
        raters = graph.item_offsets[row_items + 1] - graph.item_offsets[row_items]
        own[k] = (len(row_items) - 1) / (raters.sum() - raters.max())
    return 4 - 2 * float(np.mean(own))
