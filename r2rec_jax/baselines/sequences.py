"""Histories as sequences of items, for the models that predict the next item."""

import numpy as np

from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError


class NextItemBatches:
    """Batch k of training windows: {'user' [N], 'items' [N, T], 'target' [N, T], 'mask' [N, T]}.

    An epoch splits every user's history into windows of T + 1 items. Consecutive windows overlap by one item,
    so that each interaction except the first is a target once. The window boundaries are drawn anew for every
    user and epoch, so that it is not always the same targets that lack context. Rows are right-padded. user,
    items and target are int32, mask is float32. Batch k depends on (seed, k) only.
    """

    def __init__(self, dataset: Dataset, *, length: int, batch_size: int, seed: int):
        """Raises UserError if no user has two items before the cutoff, or a size is not positive."""
        if min(length, batch_size) < 1:
            raise UserError(f"baselines: length {length} and batch_size {batch_size} must be at least 1")
        self.item = np.asarray(dataset.interactions.item)
        self.begin = np.asarray(dataset.interactions.offsets[:-1])
        self.end = np.asarray(dataset.split.cutoff)
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.users = users_with_two(dataset)
        self._cached: tuple[int, np.ndarray | None] = (-1, None)
        # The same in all epochs, so that k determines the epoch.
        self.per_epoch = max(1, len(self._windows(0)) // batch_size)

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        epoch, place = divmod(int(k), self.per_epoch)
        cached, windows = self._cached
        if cached != epoch:
            windows = self._windows(epoch)
            self._cached = epoch, windows
        # An epoch may have fewer windows than the first one, hence the modulo.
        chosen = windows[(place * self.batch_size + np.arange(self.batch_size)) % len(windows)]
        user, first, last = chosen.T
        columns = first[:, None] + np.arange(self.length)
        mask = columns < last[:, None]
        columns = np.minimum(columns, last[:, None] - 1)
        return {
            "user": user.astype(np.int32),
            "items": np.where(mask, self.item[columns], 0).astype(np.int32),
            "target": np.where(mask, self.item[columns + 1], 0).astype(np.int32),
            "mask": mask.astype(np.float32),
        }

    def _windows(self, epoch: int) -> np.ndarray:
        """Shuffled windows, int64[windows, 3]: user, and log rows of the first item and the last target."""
        rng = np.random.default_rng([self.seed, epoch])
        begin, final = self.begin[self.users], self.end[self.users] - 1
        shift = rng.integers(self.length, size=len(self.users))
        count = -(-(final - begin + shift) // self.length)
        owner = np.repeat(np.arange(len(self.users)), count)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        start = begin[owner] - shift[owner] + number * self.length
        first = np.maximum(start, begin[owner])
        last = np.minimum(start + self.length, final[owner])
        return rng.permutation(np.stack([self.users[owner], first, last], axis=1))


def recent_items(dataset: Dataset, users: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The last `length` items before the cutoffs, oldest first.

    Returns:
      items int32[n, length], right-padded with 0, and their number int32[n].
    """
    item, offsets = dataset.interactions.item, dataset.interactions.offsets
    end = np.asarray(dataset.split.cutoff)[users]
    start = np.maximum(offsets[:-1][users], end - length)
    columns = start[:, None] + np.arange(length)
    shown = np.minimum(columns, len(item) - 1)
    return np.where(columns < end[:, None], item[shown], 0).astype(np.int32), (end - start).astype(np.int32)


def users_with_two(dataset: Dataset) -> np.ndarray:
    """The users with at least two items before their cutoffs, int[n]. Raises UserError if there are none."""
    users = np.flatnonzero(np.asarray(dataset.split.cutoff) - dataset.interactions.offsets[:-1] > 1)
    if not len(users):
        raise UserError("baselines: no user has two items before the cutoff; use more data")
    return users
