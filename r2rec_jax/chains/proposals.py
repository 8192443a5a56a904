"""Samples chains by rejection, without enumerating companions: u -> i0 -> p -> i1 -> u, as in formula 1.

A proposal draws an edge uniformly among all edges at u's items, except the item with the most raters. That
item would be the costliest, and a companion shares two items with u, so it also appears at another one.
A peer p is drawn in proportion to n, the number of the remaining items that it shares. It is accepted with
probability 1/n if it shares at least two items in total, so every companion is equally likely. Then an
ordered pair of distinct shared items is drawn. The caller handles rejections.

The running time is dominated by memory latency. Proposals therefore advance in blocks, stage by stage, and
each stage prefetches what the next one reads (`fetch`). Out-of-order execution alone overlaps fewer loads,
because instructions retire in order.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from r2rec_jax.chains.graph import MAX_SPAN, Graph
from r2rec_jax.chains.prefetch import fetch

BLOCK = 64
LINE = 16  # items on a cache line
SEARCH_FROM = 8  # length ratio of two rows from which the longer one is searched instead of merged
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def propose_companions(
    graph: Graph, users: np.ndarray, key: int, *, first: int = 0, before: int = MAX_SPAN + 1, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Makes one proposal per entry of `users` int32[n]. Entry k uses the random stream (key, first + k).

    Args:
      before: a time on the scale of Graph.clock. Ratings of peers at or after it are ignored.
      threads: number of threads. The result does not depend on it.

    Returns:
      companions int32[n], -1 where the proposal was rejected;
      int64[n, 4], for accepted proposals the indices of the edges u-i0, p-i0, p-i1, u-i1 in user_items and
        user_ratings.
    """
    companions, places = np.empty(len(users), np.int32), np.empty((len(users), 4), np.int64)
    arrays = (graph.user_offsets, graph.user_items, graph.item_offsets, graph.item_edges)

    def work(begin: int, end: int) -> None:
        part = slice(begin, end)
        stream = np.uint64((key + (first + begin) * 4 * int(GOLDEN)) % (1 << 64))
        _propose(*arrays, users[part], stream, before, companions[part], places[part])

    cuts = np.linspace(0, len(users), threads + 1).astype(int).tolist()
    if threads == 1:
        work(0, len(users))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, cuts[:-1], cuts[1:]))
    return companions, places


@njit(nogil=True, cache=True)
def _propose(user_offsets, user_items, item_offsets, item_edges, users, stream, before, companions, places):
    own = np.empty((BLOCK, 2), np.int64)  # the user's row
    top = np.empty(BLOCK, np.int32)  # the user's item with the most raters
    edge = np.empty(BLOCK, np.int64)  # the drawn edge, -1 for none
    row = np.empty((BLOCK, 2), np.int64)  # the peer's row
    for base in range(0, len(users), BLOCK):
        size = min(BLOCK, len(users) - base)
        for k in range(size):
            fetch(user_offsets, users[base + k], users[base + k] + 1)
        for k in range(size):
            user = users[base + k]
            own[k, 0], own[k, 1] = user_offsets[user], user_offsets[user + 1]
            fetch(user_items, own[k, 0], own[k, 1])
        for k in range(size):
            for place in range(own[k, 0], own[k, 1]):
                fetch(item_offsets, user_items[place], user_items[place] + 1)
        for k in range(size):
            start, stop, uniform = own[k, 0], own[k, 1], _uniform(stream, base + k, 0)
            if stop - start < 2:
                top[k], edge[k] = -1, -1
            else:
                top[k], edge[k] = _draw_edge(user_items, item_offsets, start, stop, uniform)
            fetch(item_edges, edge[k], edge[k] + 1)
        for k in range(size):
            peer = item_edges[edge[k], 0] if edge[k] >= 0 else users[base + k]
            companions[base + k] = peer
            fetch(user_offsets, peer, peer + 1)
        for k in range(size):
            peer = companions[base + k]
            row[k, 0], row[k, 1] = user_offsets[peer], user_offsets[peer + 1]
            fetch(user_items, row[k, 0], min(row[k, 0] + LINE, row[k, 1]))
        for k in range(size):
            peer = companions[base + k]
            companions[base + k] = -1
            if peer == users[base + k] or item_edges[edge[k], 2] >= before:
                continue
            bounds = (own[k, 0], own[k, 1], row[k, 0], row[k, 1])
            shared, with_top = _shared(user_items, item_offsets, item_edges, bounds, peer, before, top[k])
            if shared < 2 or _uniform(stream, base + k, 1) * (shared - with_top) >= 1:
                continue
            companions[base + k] = peer
            first = int(_uniform(stream, base + k, 2) * shared)
            second = int(_uniform(stream, base + k, 3) * (shared - 1))
            second += second >= first
            _find(user_items, item_offsets, item_edges, bounds, peer, before, first, second, places[base + k])


@njit(nogil=True, cache=True)
def _uniform(stream, row, draw):
    """Random number `draw` < 4 of a row: float64 in [0, 1), by SplitMix64 (Steele, Lea and Flood, 2014)."""
    bits = stream + (np.uint64(row) * np.uint64(4) + np.uint64(draw) + np.uint64(1)) * GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)) * (1.0 / (1 << 53))


@njit(nogil=True, cache=True)
def _draw_edge(user_items, item_offsets, start, stop, uniform):
    """Returns (the item with the most raters, an edge drawn uniformly from those at the other items)."""
    total, most, top = np.int64(0), np.int64(-1), np.int64(start)
    for place in range(start, stop):
        item = user_items[place]
        raters = item_offsets[item + 1] - item_offsets[item]
        total += raters
        if raters > most:
            most, top = raters, place
    rest = np.int64(uniform * (total - most))
    for place in range(start, stop):
        item = user_items[place]
        raters = item_offsets[item + 1] - item_offsets[item]
        if place != top:
            if rest < raters:
                return user_items[top], item_offsets[item] + rest
            rest -= raters
    return user_items[top], np.int64(-1)  # never: rest < total - most


@njit(nogil=True, cache=True)
def _shared(user_items, item_offsets, item_edges, bounds, peer, before, top):
    """Returns the number of visible items that two rows share, and whether `top` is one of them."""
    a, a_stop, b, b_stop = bounds
    shared, with_top = 0, 0
    if (b_stop - b) > SEARCH_FROM * (a_stop - a) or (a_stop - a) > SEARCH_FROM * (b_stop - b):
        if a_stop - a > b_stop - b:
            a, a_stop, b, b_stop = b, b_stop, a, a_stop
        for place in range(a, a_stop):
            item = user_items[place]
            b += np.searchsorted(user_items[b:b_stop], item)
            if b == b_stop:
                break
            if user_items[b] == item and _visible(item_offsets, item_edges, item, peer, before):
                shared += 1
                with_top += item == top
        return shared, with_top
    while a < a_stop and b < b_stop:
        item, others = user_items[a], user_items[b]
        if item == others and _visible(item_offsets, item_edges, item, peer, before):
            shared += 1
            with_top += item == top
        a += item <= others
        b += others <= item
    return shared, with_top


@njit(nogil=True, cache=True)
def _find(user_items, item_offsets, item_edges, bounds, peer, before, first, second, places):
    """Fills `places` with the edges of the shared visible items numbered `first` and `second`."""
    a, a_stop, b, b_stop = bounds
    shared = 0
    while a < a_stop and b < b_stop:
        item, others = user_items[a], user_items[b]
        if item == others and _visible(item_offsets, item_edges, item, peer, before):
            if shared == first:
                places[0], places[1] = a, b
            elif shared == second:
                places[2], places[3] = b, a
            shared += 1
        a += item <= others
        b += others <= item


@njit(nogil=True, cache=True)
def _visible(item_offsets, item_edges, item, peer, before):
    """Whether the peer's rating of the item is earlier than `before`."""
    if before > MAX_SPAN:
        return True
    start, stop = item_offsets[item], item_offsets[item + 1]
    while start < stop:
        middle = (start + stop) >> 1
        if item_edges[middle, 0] < peer:
            start = middle + 1
        else:
            stop = middle
    return item_edges[start, 2] < before
