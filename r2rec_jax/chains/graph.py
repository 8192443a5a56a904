"""The bipartite graph of users and items, as compressed sparse rows in both directions."""

import dataclasses
import functools

import numpy as np

from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError

# Below about this many edges, sorting with numpy is faster than loading the compiled kernels.
COMPILE_ABOVE = 1 << 22
MAX_SPAN = (1 << 32) - 1  # seconds, 136 years: times are uint32


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A graph of E rated edges.

    User u's items are user_items[user_offsets[u]:user_offsets[u + 1]], ascending. Item i's users are
    item_users[item_offsets[i]:item_offsets[i + 1]], ascending.

    Offsets are int64, items int32[E], ratings float32[E]. item_edges uint32[E, 3] contains the user, the bits
    of the rating, and the seconds from `epoch` to the rating, so that an edge is one cache line. Times are
    stored in this direction only. Both directions with offsets then need at most 12 bytes per edge and
    direction, even at three edges per user.
    """

    user_offsets: np.ndarray
    user_items: np.ndarray
    user_ratings: np.ndarray
    item_offsets: np.ndarray
    item_edges: np.ndarray
    epoch: int

    @property
    def n_users(self) -> int:
        return len(self.user_offsets) - 1

    @property
    def item_users(self) -> np.ndarray:
        """Users by item, int32[E], a view of item_edges."""
        return self.item_edges[:, 0].view(np.int32)

    @property
    def item_ratings(self) -> np.ndarray:
        """Ratings by item, float32[E], a view of item_edges."""
        return self.item_edges[:, 1].view(np.float32)

    @property
    def item_times(self) -> np.ndarray:
        """Seconds since `epoch` by item, uint32[E], a view of item_edges."""
        return self.item_edges[:, 2]

    @functools.cached_property
    def widest_difference(self) -> float:
        """The largest difference between two ratings of the graph."""
        return float(np.ptp(self.user_ratings)) if len(self.user_ratings) else 0.0

    @property
    def nbytes(self) -> int:
        """Total size of the arrays in bytes."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def items_of(self, user: int) -> np.ndarray:
        return self.user_items[self.user_offsets[user] : self.user_offsets[user + 1]]

    def users_of(self, item: int) -> np.ndarray:
        return self.item_users[self.item_offsets[item] : self.item_offsets[item + 1]]

    def rating(self, user: int, item: int) -> float:
        """The rating on an existing edge. Raises KeyError when there is none."""
        items = self.items_of(user)
        place = int(np.searchsorted(items, item))
        if place == len(items) or items[place] != item:
            raise KeyError((user, item))
        return float(self.user_ratings[self.user_offsets[user] + place])

    def time(self, user: int, item: int) -> int:
        """Seconds from the epoch to the rating on an existing edge. Raises KeyError when there is none."""
        users = self.users_of(item)
        place = int(np.searchsorted(users, user))
        if place == len(users) or users[place] != user:
            raise KeyError((user, item))
        return int(self.item_times[self.item_offsets[item] + place])

    def clock(self, time: int | None) -> int:
        """Converts a time in seconds, as in Interactions, to that of item_times. None: after all edges."""
        return MAX_SPAN + 1 if time is None else min(max(int(time) - self.epoch, 0), MAX_SPAN + 1)


def build_graph(dataset: Dataset) -> Graph:
    """The graph of all visible ratings: the rows of each user before the cutoff."""
    log = dataset.interactions
    rows = np.flatnonzero(np.arange(len(log)) < dataset.split.cutoff[log.user])
    columns = (column[rows] for column in (log.user, log.item, log.rating, log.time))
    return compress(*columns, log.n_users, log.n_items)


def compress(
    user: np.ndarray, item: np.ndarray, rating: np.ndarray, time: np.ndarray, n_users: int, n_items: int
) -> Graph:
    """The graph of distinct edges in columns [E], sorted by user, with dtypes as in Interactions.

    Raises:
      UserError: the times span more than 136 years, so they are not in seconds.
    """
    epoch = int(time.min()) if len(time) else 0
    if len(time) and int(time.max()) - epoch > MAX_SPAN:
        raise UserError("the log's times span more than 136 years: the reader must convert them to seconds")
    if len(user) > COMPILE_ABOVE:
        from r2rec_jax.chains.counting_sort import both_ways

        return Graph(*both_ways(user, item, rating, time, n_users, n_items, epoch), epoch)
    by_user = np.argsort(user.astype(np.int64) * n_items + item)
    by_item = np.argsort(item, kind="stable")  # users ascend already
    edges = (user, rating.view(np.uint32), (time - epoch).astype(np.uint32))
    return Graph(
        user_offsets=_offsets(user, n_users),
        user_items=item[by_user],
        user_ratings=rating[by_user],
        item_offsets=_offsets(item, n_items),
        item_edges=np.stack([column[by_item].astype(np.uint32) for column in edges], axis=1),
        epoch=epoch,
    )


def _offsets(index: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(index, minlength=count))]).astype(np.int64)
