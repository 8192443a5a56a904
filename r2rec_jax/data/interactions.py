"""The two tables that every reader produces: the rating log, and the catalogue of items and users."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from r2rec_jax.data.duplicate_titles import versions
from r2rec_jax.runtime.plain_text import clean

BLOCK = 1 << 22  # rows per block where a temporary of the whole log would be large


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """A rating log in columns, sorted by (user, time). Rows with equal times keep the order of the file.

    user, item: int32[N], dense indices below n_users and n_items. rating: float32[N].
    time: int64[N], seconds. A (user, item) pair occurs at most once.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray
    n_users: int
    n_items: int
    offsets: np.ndarray | None = dataclasses.field(default=None, repr=False)  # int64[n_users + 1]

    def __post_init__(self):
        # The rows of user u are offsets[u]:offsets[u + 1].
        if self.offsets is None:
            rows_per_user = np.bincount(self.user, minlength=self.n_users)
            offsets = np.concatenate([[0], np.cumsum(rows_per_user)]).astype(np.int64)
            object.__setattr__(self, "offsets", offsets)

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def from_log(cls, user, item, rating, time, n_users: int, n_items: int) -> "Interactions":
        """Sorts a log in file order and keeps the earliest row of a repeated (user, item) pair."""
        return cls.ordered(user, item, rating, time, None, n_users, n_items)[0]

    @classmethod
    def ordered(
        cls, user, item, rating, time, fine, n_users: int, n_items: int
    ) -> tuple["Interactions", np.ndarray]:
        """`from_log`, and the position in the file of every row that is kept: int64[N].

        fine: int[N], fractions of a second that order rows within the same second, or None.

        Raises:
          ValueError: columns of unequal length, or an index outside its range.
        """
        user = np.asarray(user, np.int32)
        item = np.asarray(item, np.int32)
        rating = np.asarray(rating, np.float32)
        time = np.asarray(time, np.int64)
        if not len(user) == len(item) == len(rating) == len(time):
            raise ValueError("the columns of a log must have the same length")
        for name, index, limit in (("user", user, n_users), ("item", item, n_items)):
            if len(index) and not 0 <= index.min() <= index.max() < limit:
                raise ValueError(f"{name} indices must lie in 0..{limit - 1}")
        clock = (time,) if fine is None else (np.asarray(fine), time)
        order = np.lexsort((*clock, user))  # stable, so ties keep the file's order
        user, item = user[order], item[order]
        first = first_of_pair(user, item)
        if not first.all():
            user, item, order = user[first], item[first], order[first]
        return cls(user, item, rating[order], time[order], n_users, n_items), order


def first_of_pair(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Marks the first row of every (user, item) pair of a log sorted by user: bool[N].

    Processes blocks of whole users, which keeps the temporaries small for logs such as 44M rows.
    """
    first = np.ones(len(user), bool)
    start = 0
    while start < len(user):
        # A user with more rows than BLOCK stays in one block.
        end = int(np.searchsorted(user, user[min(start + BLOCK, len(user)) - 1], side="right"))
        by_pair = np.lexsort((item[start:end], user[start:end]))
        users, items = user[start:end][by_pair], item[start:end][by_pair]
        again = (users[1:] == users[:-1]) & (items[1:] == items[:-1])
        first[start + by_pair[1:][again]] = False
        start = end
    return first


@dataclasses.dataclass(frozen=True)
class Catalog:
    """Metadata of items and users.

    title: one per item. year: int32[n_items], 0 when unknown. genres: a tuple per item.
    demographics: a dict per user, {} when unknown, e.g.
      {"gender": "female", "age": "25-34", "occupation": "lawyer"}.
    user_ids, item_ids: the ids in the raw files, by default the indices as text.
    Small sources use lists, large ones the memory-mapped sequences of data/mapped_text.py.
    """

    title: Sequence[str]
    year: np.ndarray
    genres: Sequence[tuple[str, ...]]
    demographics: Sequence[dict[str, str]]
    user_ids: Sequence[str] = ()
    item_ids: Sequence[str] = ()

    def __post_init__(self):
        for name, count in (("user_ids", len(self.demographics)), ("item_ids", len(self.title))):
            if len(getattr(self, name)) != count:
                if len(getattr(self, name)):
                    raise ValueError(f"{len(getattr(self, name))} {name} for {count}")
                object.__setattr__(self, name, [str(number) for number in range(count)])

    @functools.cached_property
    def same_name(self) -> np.ndarray:
        """int32[n_items]: the item's number among the items with its title and year, from 1; 0 if unique."""
        return versions(self._cleaned(), self.year)

    @functools.cached_property
    def same_title(self) -> np.ndarray:
        """int32[n_items]: the item's number among the items with its title, from 1; 0 if unique."""
        return versions(self._cleaned(), np.zeros_like(self.year))

    def _cleaned(self) -> list[str]:
        return [self.shown(item) for item in range(len(self.title))]

    def shown(self, item: int) -> str:
        """The title without markup, as prompts show it. If nothing remains, "item" and the raw id."""
        return clean(self.title[item]) or clean(f"item {self.item_ids[item]}")
