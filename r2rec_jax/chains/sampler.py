"""Closed interaction chains `u0 -r00- i0 -r10- u1 -r11- i1 -r01- u0`."""

import dataclasses

import numpy as np

from r2rec_jax.chains.graph import Graph


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """A loop through a companion: `user` and `peer` both rated `i0` and `i1`.

    r00, r01 are the user's ratings of i0, i1; r10, r11 the peer's.
    """

    user: int
    r00: float
    i0: int
    r10: float
    peer: int
    r11: float
    i1: int
    r01: float


def companions(graph: Graph, user: int) -> np.ndarray:
    """Users other than `user` who share at least two items with it, ascending: int64[n]."""
    items = graph.items_of(user)
    if len(items) < 2:
        return np.empty(0, np.int64)
    met = np.concatenate([graph.users_of(item) for item in items])
    shared = np.bincount(met, minlength=graph.n_users)
    shared[user] = 0
    return np.flatnonzero(shared >= 2)


def sample_chains(graph: Graph, user: int, count: int, rng: np.random.Generator) -> list[Chain]:
    """Draws `count` chains: a companion uniformly, then an ordered pair of distinct shared items.

    Companions are drawn without replacement; only when there are fewer than `count` are they used
    again, each as often as the others. Each chain alone is distributed as formula 1 says.
    A user without companions gets [].
    """
    peers = companions(graph, user)
    if len(peers) == 0:
        return []
    rounds = [rng.permutation(peers) for _ in range(count // len(peers))]
    rounds.append(rng.choice(peers, count % len(peers), replace=False))
    return [_close(graph, user, int(peer), rng) for peer in np.concatenate(rounds)]


def _close(graph: Graph, user: int, peer: int, rng: np.random.Generator) -> Chain:
    shared = np.intersect1d(graph.items_of(user), graph.items_of(peer), assume_unique=True)
    first = int(rng.integers(len(shared)))
    second = int(rng.integers(len(shared) - 1))
    second += second >= first
    i0, i1 = int(shared[first]), int(shared[second])
    return Chain(
        user=user,
        r00=graph.rating(user, i0),
        i0=i0,
        r10=graph.rating(peer, i0),
        peer=peer,
        r11=graph.rating(peer, i1),
        i1=i1,
        r01=graph.rating(user, i1),
    )
