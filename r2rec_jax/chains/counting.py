"""Counting sort of a large log into rows both ways, compiled, one thread a direction.

Threads are Python's, since the kernels release the interpreter lock: numba's own workers may not be
entered by two threads at once, which an input pipeline does.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

SHORT = 16  # a row up to this long is sorted by counting smaller items, without branches


def both_ways(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    time: np.ndarray,
    n_users: int,
    n_items: int,
    epoch: int,
) -> tuple[np.ndarray, ...]:
    """The arrays of `Graph`, in its order, from columns [E] ascending by user."""
    user_offsets, item_offsets = np.zeros(n_users + 1, np.int64), np.zeros(n_items + 1, np.int64)
    user_items, user_ratings = np.empty(len(user), np.int32), np.empty(len(user), np.float32)
    item_edges = np.empty((len(user), 3), np.uint32)
    with ThreadPoolExecutor(2) as pool:
        tasks = (
            pool.submit(_by_item, user, item, rating.view(np.uint32), time, epoch, item_offsets, item_edges),
            pool.submit(_by_user, user, item, rating, user_offsets, user_items, user_ratings),
        )
        for task in tasks:
            task.result()
    return user_offsets, user_items, user_ratings, item_offsets, item_edges


@njit(nogil=True, cache=True)
def _count(index, offsets):
    """Turns zeros int64[count + 1] into the bounds of rows."""
    for k in range(len(index)):
        offsets[index[k] + 1] += 1
    for row in range(len(offsets) - 1):
        offsets[row + 1] += offsets[row]


@njit(nogil=True, cache=True)
def _by_item(user, item, rating_bits, time, epoch, item_offsets, item_edges):
    """Users ascend in an item's row because they do in the columns."""
    _count(item, item_offsets)
    cursor = item_offsets[:-1].copy()
    for k in range(len(item)):
        place = cursor[item[k]]
        cursor[item[k]] = place + 1
        item_edges[place, 0] = user[k]
        item_edges[place, 1] = rating_bits[k]
        item_edges[place, 2] = time[k] - epoch


@njit(nogil=True, cache=True)
def _by_user(user, item, rating, user_offsets, user_items, user_ratings):
    """Sorts the items of each user, who owns consecutive rows of the columns."""
    _count(user, user_offsets)
    for row in range(len(user_offsets) - 1):
        start, stop = user_offsets[row], user_offsets[row + 1]
        if stop - start > SHORT:
            order = start + np.argsort(item[start:stop])
            for k in range(stop - start):
                user_items[start + k] = item[order[k]]
                user_ratings[start + k] = rating[order[k]]
            continue
        for k in range(start, stop):
            place = start
            for other in range(start, stop):
                place += item[other] < item[k]
            user_items[place] = item[k]
            user_ratings[place] = rating[k]
