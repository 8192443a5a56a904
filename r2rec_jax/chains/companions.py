"""Enumerates a user's possible companions in chains, and computes their sampling weights.

`clock` is a time on the graph's scale (Graph.clock). Ratings of peers at or after it are ignored. The user's
own rows in the graph are the history, so all of them are used.
"""

import numpy as np

from r2rec_jax.chains.graph import MAX_SPAN, Graph
from r2rec_jax.runtime.errors import UserError

SELECTIONS = ("uniform", "similar", "candidate_aware")  # the kinds of weights
SHRINKAGE = 5  # number of pseudo-items that shrinks a mean agreement towards zero


def companions(graph: Graph, user: int, clock: int = MAX_SPAN + 1) -> np.ndarray:
    """Users other than `user` who share at least two items with it, ascending: int32[n]."""
    items, popular = graph.items_of(user), most_rated(graph, user)
    if popular is None:
        return np.empty(0, np.int32)
    # A companion shares two items, hence at least one besides the most popular item, which is the costliest.
    found = [raters(graph, item, clock)[0] for item in items if item != popular]
    peers, shared = np.unique(np.concatenate(found), return_counts=True)
    shared += np.isin(peers, raters(graph, popular, clock)[0])
    return peers[(shared >= 2) & (peers != user)]


def most_rated(graph: Graph, user: int) -> int | None:
    """The user's item with the most ratings, or None if the user has fewer than two items."""
    items = graph.items_of(user)
    if len(items) < 2:
        return None
    return int(items[np.argmax(graph.item_offsets[items + 1] - graph.item_offsets[items])])


def weights(
    graph: Graph, user: int, peers: np.ndarray, selection: str, candidates: np.ndarray, clock: int
) -> np.ndarray:
    """Unnormalized sampling weights of the companions: float64[n], not negative.

    uniform: equal weights (the paper).
    similar: agreement of ratings. On a shared item it is 1 - 2 |difference| / (largest difference in the
      graph): 1 for equal and -1 for opposite ratings. The weight is the sum over the shared items divided
      by (their number + SHRINKAGE), or zero if negative.
    candidate_aware: prefers companions who rated candidates. Each candidate distributes a weight of one
      evenly over the companions who rated it. The order of the candidates has no effect, and the held-out
      item is treated like the others.

    Raises:
      UserError: an unknown `selection`.
    """
    if selection == "uniform":
        return np.ones(len(peers))
    if selection == "similar":
        return _agreement(graph, user, peers, clock)
    if selection == "candidate_aware":
        total = np.zeros(len(peers))
        for item in np.sort(candidates):
            rated = np.isin(peers, raters(graph, item, clock)[0])
            total += rated / max(1, rated.sum())
        return total
    raise UserError(f"chain selection {selection!r}: use {', '.join(SELECTIONS)}")


def _agreement(graph: Graph, user: int, peers: np.ndarray, clock: int) -> np.ndarray:
    if len(peers) == 0:
        return np.empty(0)
    row = slice(graph.user_offsets[user], graph.user_offsets[user + 1])
    found, difference = [], []
    for item, rating in zip(graph.user_items[row], graph.user_ratings[row], strict=True):
        users, ratings = raters(graph, item, clock)
        found.append(users)
        difference.append(np.abs(ratings - rating))
    found, difference = np.concatenate(found), np.concatenate(difference)
    place = np.minimum(np.searchsorted(peers, found), len(peers) - 1)
    is_peer = peers[place] == found
    agreement = 1 - 2 * difference[is_peer] / max(graph.widest_difference, 1e-9)
    shared = np.bincount(place[is_peer], minlength=len(peers))
    return np.maximum(np.bincount(place[is_peer], agreement, len(peers)), 0) / (shared + SHRINKAGE)


def raters(graph: Graph, item: int, clock: int) -> tuple[np.ndarray, np.ndarray]:
    """The users who rated `item` before `clock`, ascending, int32[n], and their ratings float32[n]."""
    row = slice(graph.item_offsets[item], graph.item_offsets[item + 1])
    users, ratings = graph.item_users[row], graph.item_ratings[row]
    if clock > MAX_SPAN:
        return users, ratings
    earlier = graph.item_times[row] < clock
    return users[earlier], ratings[earlier]
