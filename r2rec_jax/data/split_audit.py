"""Audits a data set for leaks and protocol violations before training.

`audit` checks the folder: order, held-out items, groups, candidates and demographics. `audit_chains` checks
sampled chains: it looks up every edge in the log itself, not in the graph.
"""

from collections.abc import Iterable

import numpy as np

from r2rec_jax.data.interactions import first_of_pair
from r2rec_jax.data.negatives import compact
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError

Edge = tuple[int, int, float]  # user, item, rating


def audit(dataset: Dataset) -> None:
    """Checks order, held-out items, groups, candidates and demographics of all users.

    Raises:
      UserError: the first leak or inconsistency, with its user.
    """
    _audit_log(dataset)
    _audit_truths(dataset)
    _audit_groups(dataset)
    _audit_candidates(dataset)
    _audit_demographics(dataset)


def audit_chains(
    dataset: Dataset, user: int, edges: Iterable[Edge], *, before_target_time: bool = False
) -> None:
    """Checks the edges (user, item, rating) of the chains in a prompt of `user`.

    Every edge must be in the log with this rating, before the cutoff of the edge's user. No item may be a
    candidate. With `before_target_time`, edges of other users must be earlier than the user's held-out item.

    Raises:
      UserError: the first edge that violates this.
    """
    log, split = dataset.interactions, dataset.split
    candidates = set(split.candidates[user].tolist())
    for rater, item, rating in edges:
        start, cutoff = int(log.offsets[rater]), int(split.cutoff[rater])
        row = np.flatnonzero(log.item[start : log.offsets[rater + 1]] == item)
        if len(row) != 1 or log.rating[start + row[0]] != rating:
            raise _fault(dataset, f"a chain of user {user} has an edge {rater}-{item} that is not in the log")
        if start + row[0] >= cutoff:
            raise _fault(
                dataset, f"a chain of user {user} has an edge at or after the cutoff of user {rater}"
            )
        if item in candidates:
            raise _fault(dataset, f"a chain of user {user} contains the candidate {item}")
        if not before_target_time or rater == user:
            continue
        if log.time[start + row[0]] >= dataset.truth_time(user):
            raise _fault(
                dataset,
                f"a chain of user {user} has an edge of user {rater} after the time of the held-out item",
            )


def _audit_log(dataset: Dataset) -> None:
    log = dataset.interactions
    same_user = np.diff(log.user) == 0
    if np.any(np.diff(log.user) < 0) or np.any(np.diff(log.time)[same_user] < 0):
        raise _fault(dataset, "rows are not sorted by user and time")
    if not first_of_pair(log.user, log.item).all():
        raise _fault(dataset, "a user rated an item more than once")


def _audit_truths(dataset: Dataset) -> None:
    log, split = dataset.interactions, dataset.split
    begin, end = log.offsets[:-1], log.offsets[1:]
    cutoff, all_users = split.cutoff, np.arange(log.n_users)
    inside = (begin <= cutoff) & np.where(split.truth >= 0, cutoff < end, cutoff == end)
    _require(dataset, all_users, inside, "the cutoff lies outside the user's rows")
    held_out = np.flatnonzero(split.truth >= 0)
    at_cutoff = log.item[cutoff[held_out]] == split.truth[held_out]
    _require(dataset, held_out, at_cutoff, "the held-out item is not the item at the cutoff")
    liked = log.rating[cutoff[held_out]] > split.like_above
    _require(dataset, held_out, liked, "the held-out item is not a liked item")
    # A user's items are unique, so a held-out item at the cutoff cannot also be in the history.


def _audit_groups(dataset: Dataset) -> None:
    split = dataset.split
    members = np.concatenate(list(split.users.values()))
    all_users = np.arange(len(split.truth))
    times_used = np.bincount(members, minlength=len(all_users))
    _require(dataset, all_users, times_used <= 1, "the user is in more than one group")
    _require(dataset, members, split.truth[members] >= 0, "the user has no held-out item")
    drawn = np.zeros(len(all_users), bool)
    drawn[compact(split.candidates).users] = True
    _require(dataset, all_users, drawn == (times_used == 1), "candidates and groups disagree")


def _audit_candidates(dataset: Dataset) -> None:
    log, split = dataset.interactions, dataset.split
    rated_by_somebody = np.zeros(log.n_items, bool)
    rated_by_somebody[log.item] = True
    for user in np.concatenate(list(split.users.values())):
        row, truth = split.candidates[user], split.truth[user]
        if not (0 <= row.min() <= row.max() < log.n_items):
            raise _fault(dataset, f"a candidate of user {user} is not in the catalogue")
        if len(np.unique(row)) < len(row) or truth not in row:
            raise _fault(dataset, f"the candidates of user {user} repeat an item or lack the held-out item")
        negatives = row[row != truth]
        own = log.item[log.offsets[user] : log.offsets[user + 1]]
        if np.isin(negatives, own).any():
            raise _fault(dataset, f"a negative of user {user} is an item the user rated")
        if not rated_by_somebody[negatives].all():
            raise _fault(dataset, f"a negative of user {user} has no rating in the log")


def _audit_demographics(dataset: Dataset) -> None:
    """Checks that no trait is the title of a held-out or later item, as in a column "last bought"."""
    log, split, catalog = dataset.interactions, dataset.split, dataset.catalog
    for user in np.concatenate(list(split.users.values())).tolist():
        values = {value.strip().casefold() for value in catalog.demographics[user].values()}
        if not values:
            continue
        for item in log.item[split.cutoff[user] : log.offsets[user + 1]]:
            if catalog.title[item].casefold() in values:
                raise _fault(
                    dataset, f"the demographics of user {user} contain {catalog.title[item]!r}, rated later"
                )


def _require(dataset: Dataset, users: np.ndarray, valid: np.ndarray, fault: str) -> None:
    """Raises UserError for the first of `users` whose entry in `valid` is False."""
    wrong = users[~valid]
    if len(wrong):
        raise _fault(dataset, f"user {wrong[0]}: {fault}")


def _fault(dataset: Dataset, fault: str) -> UserError:
    return UserError(
        f"data set {dataset.name!r} violates its protocol: {fault}; rebuild it with python -m launch.prepare"
    )
