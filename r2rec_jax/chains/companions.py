"""Who may stand in a chain beside a user, by enumeration, and how much each companion counts.

`clock` is a time on the graph's scale (Graph.clock): peers' ratings at or after it do not exist. The
user's own rows are the history and all count.
"""

import numpy as np

from r2rec_jax.chains.graph import MAX_SPAN, Graph
from r2rec_jax.runtime.errors import UserError

SELECTIONS = ("uniform", "similar", "candidate_aware")  # by weight of companions
DOUBT = 5  # shared items by which a mean agreement is shrunk towards nothing


def companions(graph: Graph, user: int, clock: int = MAX_SPAN + 1) -> np.ndarray:
    """Users other than `user` who share at least two items with it, ascending: int32[n]."""
    items, popular = graph.items_of(user), most_rated(graph, user)
    if popular is None:
        return np.empty(0, np.int32)
    # A companion is met outside the most popular item, which would be most of the work.
    met = [raters(graph, item, clock)[0] for item in items if item != popular]
    peers, shared = np.unique(np.concatenate(met), return_counts=True)
    shared += np.isin(peers, raters(graph, popular, clock)[0])
    return peers[(shared >= 2) & (peers != user)]


def most_rated(graph: Graph, user: int) -> int | None:
    """The user's item that most have rated; None when it has fewer than two items."""
    items = graph.items_of(user)
    if len(items) < 2:
        return None
    return int(items[np.argmax(graph.item_offsets[items + 1] - graph.item_offsets[items])])


def weights(
    graph: Graph, user: int, peers: np.ndarray, selection: str, candidates: np.ndarray, clock: int
) -> np.ndarray:
    """How likely each companion is to be drawn, up to a factor: float64[n], not negative.

    uniform: the paper's, all alike.
    similar: agreement of ratings. On an item both rated it is 1 - 2 |difference| / (widest difference
      in the graph), so 1 for equal and -1 for opposite ratings. Its sum over the shared items, divided
      by their number + DOUBT, is the weight; below zero it is zero.
    candidate_aware: companions who rated candidates, on paths from the history through them into a
      candidate's neighbourhood. Every candidate with such companions spreads one unit evenly over
      them; nothing here knows which one is the truth, and their order does not matter.

    Raises:
      UserError: another `selection`.
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
    met, difference = [], []
    for item, rating in zip(graph.user_items[row], graph.user_ratings[row], strict=True):
        users, ratings = raters(graph, item, clock)
        met.append(users)
        difference.append(np.abs(ratings - rating))
    met, difference = np.concatenate(met), np.concatenate(difference)
    place = np.minimum(np.searchsorted(peers, met), len(peers) - 1)
    known = peers[place] == met
    agreement = 1 - 2 * difference[known] / max(graph.widest_difference, 1e-9)
    shared = np.bincount(place[known], minlength=len(peers))
    return np.maximum(np.bincount(place[known], agreement, len(peers)), 0) / (shared + DOUBT)


def raters(graph: Graph, item: int, clock: int) -> tuple[np.ndarray, np.ndarray]:
    """Users int32[n], ascending, and their ratings float32[n], earlier than `clock`."""
    row = slice(graph.item_offsets[item], graph.item_offsets[item + 1])
    users, ratings = graph.item_users[row], graph.item_ratings[row]
    if clock > MAX_SPAN:
        return users, ratings
    earlier = graph.item_times[row] < clock
    return users[earlier], ratings[earlier]
