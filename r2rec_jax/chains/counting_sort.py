"""Compiled counting sort of a large log into compressed rows by user and by item.

Each thread processes a share of the users. Python threads are used, since the kernels release the GIL.
numba's own thread pool cannot be entered by two threads at once, which an input pipeline would do.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numba import njit

from r2rec_jax.chains.prefetch import fetch

THREADS = 2  # each has its own counts of all items
AHEAD = 16  # prefetch distance in rows of the log
SHORT = 16  # longest row that is sorted by counting smaller items, without branches


def both_ways(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    time: np.ndarray,
    n_users: int,
    n_items: int,
    epoch: int,
) -> tuple[np.ndarray, ...]:
    """The arrays of `Graph`, in the order of its fields, from columns [E] sorted by user."""
    user_offsets, item_offsets = np.full(n_users + 1, len(user), np.int64), np.empty(n_items + 1, np.int64)
    user_items, user_ratings = np.empty(len(user), np.int32), np.empty(len(user), np.float32)
    item_edges = np.empty((len(user), 3), np.uint32)
    near = user[len(user) * np.arange(1, THREADS) // THREADS] if len(user) else []
    cuts = [0, *np.searchsorted(user, near).tolist(), len(user)]
    cursors = np.zeros((len(cuts) - 1, n_items), np.int64)

    def by_item(begin: int, end: int, cursor: np.ndarray) -> None:
        part = slice(begin, end)
        columns = (user[part], item[part], rating[part].view(np.uint32), time[part])
        _by_item(*columns, epoch, cursor, item_edges)

    def by_user(begin: int, end: int) -> None:
        _by_user(user, item, rating, begin, end, user_offsets, user_items, user_ratings)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(_count, [item[slice(*ends)] for ends in pairwise(cuts)], cursors))
        _bounds(cursors, item_offsets)
        list(pool.map(by_item, cuts[:-1], cuts[1:], cursors))
        list(pool.map(by_user, cuts[:-1], cuts[1:]))
    return user_offsets, user_items, user_ratings, item_offsets, item_edges


@njit(nogil=True, cache=True)
def _count(index, counts):
    for k in range(len(index)):
        counts[index[k]] += 1


@njit(nogil=True, cache=True)
def _bounds(cursors, offsets):
    """Fills `offsets`, and replaces counts [threads, rows] by each thread's first position in each row."""
    place = 0
    for row in range(cursors.shape[1]):
        offsets[row] = place
        for thread in range(len(cursors)):
            count = cursors[thread, row]
            cursors[thread, row] = place
            place += count
    offsets[-1] = place


@njit(nogil=True, cache=True)
def _by_item(user, item, rating_bits, time, epoch, cursor, item_edges):
    """Fills the rows of the items. Users ascend within a row because the columns are sorted by user."""
    for k in range(len(item)):
        soon = item[min(k + AHEAD, len(item) - 1)]
        fetch(cursor, soon, soon)
        place = cursor[item[k]]
        cursor[item[k]] = place + 1
        item_edges[place, 0] = user[k]
        item_edges[place, 1] = rating_bits[k]
        item_edges[place, 2] = time[k] - epoch


@njit(nogil=True, cache=True)
def _by_user(user, item, rating, begin, end, user_offsets, user_items, user_ratings):
    """Sorts the items of each user. A user's rows of the columns are consecutive."""
    start = begin
    while start < end:
        for row in range(user[start - 1] + 1 if start else 0, user[start] + 1):
            user_offsets[row] = start
        stop = start + 1
        while stop < end and user[stop] == user[start]:
            stop += 1
        if stop - start > SHORT:
            order = start + np.argsort(item[start:stop])
            for k in range(stop - start):
                user_items[start + k] = item[order[k]]
                user_ratings[start + k] = rating[order[k]]
        else:
            for k in range(start, stop):
                place = start
                for other in range(start, stop):
                    place += item[other] < item[k]
                user_items[place] = item[k]
                user_ratings[place] = rating[k]
        start = stop
