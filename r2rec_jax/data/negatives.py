"""Draws each user's candidates: the held-out item and negatives. They are drawn once and then frozen.

A negative is an item that at least one other user rated and the user never rated, at any time. There are
three ways to draw distinct negatives. Each is a function of (seed, user) and the log:

- uniform: all such items with equal probability (the paper).
- popularity: in proportion to an item's number of ratings before the cutoffs, without replacement.
- hard: by random walks user -> item of the history -> another rater -> an item of theirs, all before the
  cutoffs. Items that are rated together with the user's items are therefore drawn more often. These are the
  negatives that collaborative filtering scores high.

`popularity` and `hard` may find too few distinct items in `ROUNDS` attempts, if the user rated most of the
catalogue or has no neighbours. The rest is then drawn uniformly and counted.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from r2rec_jax.data.config import NEGATIVES
from r2rec_jax.data.interactions import Interactions
from r2rec_jax.runtime.errors import UserError

ROUNDS = 50


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Frozen candidate rows, stored only for the M of n_users users that have candidates: int32[M, C].

    `candidates[user]` is a row and `candidates[users]` several rows, as in an array int32[n_users, C] with
    rows of -1 for the other users. Such an array would not fit in memory for ten million users.
    """

    users: np.ndarray  # int32[M], ascending
    rows: np.ndarray  # int32[M, C]
    n_users: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_users, self.rows.shape[1]

    def __len__(self) -> int:
        return self.n_users

    def __getitem__(self, users) -> np.ndarray:
        users = np.asarray(users)
        if not np.issubdtype(users.dtype, np.integer):
            raise IndexError(f"candidates are indexed by user numbers, not {users.dtype}")
        if np.any((users < 0) | (users >= self.n_users)):
            raise IndexError(f"users must lie in 0..{self.n_users - 1}")
        if not len(self.users):
            return np.full((*users.shape, self.rows.shape[1]), -1, np.int32)
        place = np.minimum(np.searchsorted(self.users, users), len(self.users) - 1)
        has_row = self.users[place] == users
        return np.where(has_row[..., None], self.rows[place], np.int32(-1))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        del copy  # the result is always a copy
        dense = np.full(self.shape, -1, np.int32)
        dense[self.users] = self.rows
        return dense if dtype is None else dense.astype(dtype)


def compact(candidates: Candidates | np.ndarray) -> Candidates:
    """Converts int32[n_users, C] to `Candidates` without the rows of -1. `Candidates` are returned as is."""
    if isinstance(candidates, Candidates):
        return candidates
    users = np.flatnonzero((candidates >= 0).any(axis=1)).astype(np.int32)
    return Candidates(users, candidates[users].astype(np.int32), len(candidates))


def draw_candidates(
    log: Interactions,
    users: np.ndarray,
    truth: np.ndarray,
    cutoff: np.ndarray,
    *,
    count: int,
    negatives: str,
    seed: int,
) -> tuple[Candidates, int]:
    """Draws `count` shuffled candidates for each of `users`: the held-out item `truth` and negatives.

    Returns the candidates, and the number of negatives that were drawn uniformly as a replacement.

    Raises:
      UserError: an unknown kind of negatives, or a user with too few unrated items.
    """
    if negatives not in NEGATIVES:
        raise UserError(f"negatives {negatives!r} is unknown: use {', '.join(NEGATIVES)}")
    users = np.sort(users).astype(np.int32)
    rated = np.bincount(log.item, minlength=log.n_items) > 0
    _require_enough(log, users, int(rated.sum()), count)
    propose = _proposer(log, cutoff, negatives)
    rows, replaced = np.empty((len(users), count), np.int32), 0
    unused = rated.copy()
    for row, user in zip(rows, users.tolist(), strict=True):
        own = log.item[log.offsets[user] : log.offsets[user + 1]]
        unused[own] = False
        rng = np.random.default_rng([seed, user])
        chosen = np.empty(0, np.int64)
        if propose is not None:
            chosen = _distinct(propose, user, unused, count - 1, rng)
            unused[chosen] = False
            replaced += count - 1 - len(chosen)
        chosen = np.append(chosen, _uniform(unused, count - 1 - len(chosen), rng))
        row[:] = rng.permutation(np.append(chosen, truth[user]))
        unused[own], unused[chosen] = rated[own], True
    return Candidates(users, rows, log.n_users), replaced


def _require_enough(log: Interactions, users: np.ndarray, rated: int, count: int) -> None:
    # The user also rated the held-out item, which is a candidate.
    most = rated - np.diff(log.offsets)[users] + 1
    if len(users) and most.min() < count:
        raise UserError(
            f"candidates={count}: the most active user has {most.min() - 1} unrated items but "
            f"{count - 1} negatives are needed: set at most --config.data.candidates={most.min()}"
        )


def _uniform(unused: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The `count` unused items with the smallest random keys, by key: int64[count]."""
    # One key per item of the catalogue, so that the draw depends on (seed, user) only.
    key = rng.random(len(unused))
    bound = 4.0 * count / len(unused)
    # Only keys below a bound are sorted, because sorting the keys of a large catalogue is slow.
    few = np.flatnonzero((key < bound) & unused)
    if len(few) < count:
        few = np.flatnonzero(unused)
    return few[np.argsort(key[few], kind="stable")[:count]]


def _distinct(
    propose: Callable, user: int, unused: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """The first `count` distinct unused items among the proposals: int64[<= count]."""
    chosen: dict[int, None] = {}
    for _ in range(ROUNDS):
        proposed = propose(user, 2 * count, rng)
        chosen.update(dict.fromkeys(proposed[unused[proposed]].tolist()))
        if len(chosen) >= count or not len(proposed):
            break
    return np.array(list(chosen)[:count], np.int64)


def _proposer(log: Interactions, cutoff: np.ndarray, negatives: str) -> Callable | None:
    """Returns `propose(user, n, rng)`, which draws up to n items with repetition; None for uniform negatives.

    It draws from the rows before the cutoffs only.
    """
    if negatives == "uniform":
        return None
    begin, seen = log.offsets[:-1], cutoff - log.offsets[:-1]
    # before[u] is the number of visible rows of users below u. It maps a drawn number to a row.
    before = np.concatenate([[0], np.cumsum(seen)])

    def by_popularity(_: int, n: int, rng: np.random.Generator) -> np.ndarray:
        if not before[-1]:
            return np.empty(0, np.int64)
        number = rng.integers(before[-1], size=n)
        owner = np.searchsorted(before, number, side="right") - 1
        return log.item[begin[owner] + number - before[owner]]

    if negatives == "popularity":
        return by_popularity

    rows = np.flatnonzero(np.arange(len(log)) < np.repeat(cutoff, np.diff(log.offsets)))
    raters = log.user[rows[np.argsort(log.item[rows], kind="stable")]]
    item_begin = np.concatenate([[0], np.cumsum(np.bincount(log.item[rows], minlength=log.n_items))])

    def by_walk(user: int, n: int, rng: np.random.Generator) -> np.ndarray:
        if not seen[user]:
            return np.empty(0, np.int64)
        via = log.item[begin[user] + rng.integers(seen[user], size=n)]
        other = raters[rng.integers(item_begin[via], item_begin[via + 1])]
        return log.item[begin[other] + rng.integers(seen[other])]

    return by_walk
