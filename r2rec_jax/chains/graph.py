"""The bipartite graph of users and items, as compressed rows in both directions."""

import dataclasses

import numpy as np

from r2rec_jax.data.prepared import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Edges E carry ratings. User u's items are user_items[user_offsets[u]:user_offsets[u + 1]],
    ascending; item i's users are item_users[item_offsets[i]:item_offsets[i + 1]], ascending.

    Offsets are int64, items and users int32[E], ratings float32[E].
    """

    user_offsets: np.ndarray
    user_items: np.ndarray
    user_ratings: np.ndarray
    item_offsets: np.ndarray
    item_users: np.ndarray
    item_ratings: np.ndarray

    @property
    def n_users(self) -> int:
        return len(self.user_offsets) - 1

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


def build_graph(dataset: Dataset) -> Graph:
    """The graph of everything that may be seen: of each user only the rows before the cutoff."""
    log = dataset.interactions
    rows = np.flatnonzero(np.arange(len(log)) < dataset.split.cutoff[log.user])
    user, item, rating = log.user[rows], log.item[rows], log.rating[rows]
    by_user, by_item = np.lexsort((item, user)), np.lexsort((user, item))
    return Graph(
        user_offsets=_offsets(user, log.n_users),
        user_items=item[by_user],
        user_ratings=rating[by_user],
        item_offsets=_offsets(item, log.n_items),
        item_users=user[by_item],
        item_ratings=rating[by_item],
    )


def _offsets(index: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(index, minlength=count))]).astype(np.int64)
