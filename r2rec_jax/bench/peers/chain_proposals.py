"""Three simpler implementations of the proposals of chains/proposals.py, each optimized within its approach.

Each takes a graph and users int32[n] with at least two items. It returns int32[n, 3] of companion, i0 and i1,
-1 where the proposal was rejected, with the same distribution.
"""

import random

import numpy as np
from numba import njit

from r2rec_jax.chains.graph import Graph


class PlainPython:
    """Python loops over memoryviews, which return Python integers without converting all 29M elements."""

    def __init__(self, graph: Graph):
        arrays = (graph.user_offsets, graph.user_items, graph.item_offsets)
        self.user_offsets, self.user_items, self.item_offsets = map(memoryview, arrays)
        self.item_users = memoryview(np.ascontiguousarray(graph.item_users))

    def __call__(self, users: np.ndarray, seed: int) -> np.ndarray:
        rng = random.Random(seed)
        return np.array([self._propose(user, rng) for user in users.tolist()], np.int32)

    def _propose(self, user: int, rng: random.Random) -> tuple[int, int, int]:
        item_offsets = self.item_offsets
        items = self.user_items[self.user_offsets[user] : self.user_offsets[user + 1]].tolist()
        raters = [item_offsets[item + 1] - item_offsets[item] for item in items]
        top = items[raters.index(max(raters))]
        rest = int(rng.random() * (sum(raters) - max(raters)))
        for item, count in zip(items, raters, strict=True):
            if item != top:
                if rest < count:
                    break
                rest -= count
        peer = self.item_users[item_offsets[item] + rest]
        if peer == user:
            return -1, -1, -1
        theirs = self.user_items[self.user_offsets[peer] : self.user_offsets[peer + 1]].tolist()
        shared = list(set(items).intersection(theirs))
        if len(shared) < 2 or rng.random() * (len(shared) - (top in shared)) >= 1:
            return -1, -1, -1
        return peer, *rng.sample(shared, 2)


class Vectorised:
    """NumPy on whole arrays. Ragged rows are concatenated for `batch` users at a time."""

    def __init__(self, graph: Graph, batch: int = 1 << 14):
        self.graph, self.batch = graph, batch
        self.item_users = np.ascontiguousarray(graph.item_users)

    def __call__(self, users: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        parts = [users[k : k + self.batch] for k in range(0, len(users), self.batch)]
        return np.concatenate([self._propose(part, rng) for part in parts])

    def _propose(self, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        graph, n_items = self.graph, len(self.graph.item_offsets) - 1
        row, item, begin = self._rows(users)
        raters = graph.item_offsets[item + 1] - graph.item_offsets[item]
        most = np.flatnonzero(raters == np.maximum.reduceat(raters, begin)[row])
        top = most[np.append(True, np.diff(row[most]) > 0)]
        raters[top] = 0
        until = np.cumsum(raters)
        before = until[begin] - raters[begin]
        draw = before + (rng.random(len(users)) * np.add.reduceat(raters, begin)).astype(np.int64)
        hit = np.searchsorted(until, draw, side="right")
        peer = self.item_users[graph.item_offsets[item[hit]] + draw - until[hit] + raters[hit]]
        peer_row, peer_item, _ = self._rows(peer)
        edge, wanted = row * n_items + item, peer_row * n_items + peer_item
        place = np.minimum(np.searchsorted(edge, wanted), len(edge) - 1)
        matches = np.flatnonzero(edge[place] == wanted)
        peer_row, peer_item = peer_row[matches], peer_item[matches]
        shared = np.bincount(peer_row, minlength=len(users))
        with_top = np.bincount(peer_row[peer_item == item[top][peer_row]], minlength=len(users))
        accepted = (peer != users) & (shared >= 2) & (rng.random(len(users)) * (shared - with_top) < 1)
        kept = np.flatnonzero(accepted)
        begin = (np.cumsum(shared) - shared)[kept]
        first = (rng.random(len(kept)) * shared[kept]).astype(np.int64)
        second = (rng.random(len(kept)) * (shared[kept] - 1)).astype(np.int64)
        second += second >= first
        chains = np.full((len(users), 3), -1, np.int32)
        chains[kept] = np.stack([peer[kept], peer_item[begin + first], peer_item[begin + second]], axis=1)
        return chains

    def _rows(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, item) of every edge of the users, concatenated, and the position where each row begins."""
        start = self.graph.user_offsets[users]
        length = self.graph.user_offsets[users + 1] - start
        begin = np.cumsum(length) - length
        row = np.repeat(np.arange(len(users)), length)
        return row, self.graph.user_items[np.arange(len(row)) + (start - begin)[row]], begin


class PlainNumba:
    """A straightforward compiled loop that completes one walk before the next."""

    def __init__(self, graph: Graph):
        self.arrays = (graph.user_offsets, graph.user_items, graph.item_offsets)
        self.item_users = np.ascontiguousarray(graph.item_users)

    def __call__(self, users: np.ndarray, seed: int) -> np.ndarray:
        return _walk(*self.arrays, self.item_users, users, seed)


@njit
def _walk(user_offsets, user_items, item_offsets, item_users, users, seed):
    np.random.seed(seed)
    chains = np.full((len(users), 3), -1, np.int32)
    for k in range(len(users)):
        user = users[k]
        items = user_items[user_offsets[user] : user_offsets[user + 1]]
        raters = item_offsets[items + 1] - item_offsets[items]
        top = np.argmax(raters)
        rest = np.random.randint(raters.sum() - raters[top])
        for place in range(len(items)):
            if place == top:
                continue
            if rest < raters[place]:
                break
            rest -= raters[place]
        peer = item_users[item_offsets[items[place]] + rest]
        if peer == user:
            continue
        theirs = user_items[user_offsets[peer] : user_offsets[peer + 1]]
        a = b = 0
        matches = np.empty(min(len(items), len(theirs)), np.int32)
        count = 0
        while a < len(items) and b < len(theirs):
            if items[a] < theirs[b]:
                a += 1
            elif items[a] > theirs[b]:
                b += 1
            else:
                matches[count] = items[a]
                count += 1
                a += 1
                b += 1
        shared = matches[:count]
        if count < 2 or np.random.random() * (count - (items[top] in shared)) >= 1:
            continue
        first = np.random.randint(count)
        second = np.random.randint(count - 1)
        second += second >= first
        chains[k] = peer, shared[first], shared[second]
    return chains
