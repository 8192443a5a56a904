"""Proof, before anything is trained, that a data set keeps its own protocol.

`audit` is about the folder: order, truths, groups, candidates, demographics. `audit_chains` is about
what is sampled from it: every edge of a chain is looked up in the log itself, not in the graph.
"""

from collections.abc import Iterable

import numpy as np

from r2rec_jax.data.interactions import first_of_pair
from r2rec_jax.data.negatives import compact
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError

Edge = tuple[int, int, float]  # user, item, rating


def audit(dataset: Dataset) -> None:
    """Checks order, truths, groups, candidates and demographics row by row.

    Raises:
      UserError: the first leak or contradiction found, with the user it concerns.
    """
    _audit_log(dataset)
    _audit_truths(dataset)
    _audit_groups(dataset)
    _audit_candidates(dataset)
    _audit_demographics(dataset)


def audit_chains(
    dataset: Dataset, user: int, edges: Iterable[Edge], *, before_target_time: bool = False
) -> None:
    """Checks the edges of chains that are to be shown to `user`: (user, item, rating) each.

    Every edge must be in the log, with this rating, before the cutoff of whoever it belongs to; no item
    may be a candidate; with `before_target_time`, others' edges must be earlier than the user's truth.

    Raises:
      UserError: the first edge that breaks this.
    """
    log, split = dataset.interactions, dataset.split
    candidates = set(split.candidates[user].tolist())
    for who, item, rating in edges:
        start, cutoff = int(log.offsets[who]), int(split.cutoff[who])
        row = np.flatnonzero(log.item[start : log.offsets[who + 1]] == item)
        if len(row) != 1 or log.rating[start + row[0]] != rating:
            raise _fault(dataset, f"a chain of user {user} has an edge {who}-{item} that is not in the log")
        if start + row[0] >= cutoff:
            raise _fault(dataset, f"a chain of user {user} shows what user {who} did at or after the truth")
        if item in candidates:
            raise _fault(dataset, f"a chain of user {user} shows the candidate {item}")
        if not before_target_time or who == user:
            continue
        if log.time[start + row[0]] >= dataset.truth_time(user):
            raise _fault(dataset, f"a chain of user {user} shows user {who} after the time of the truth")


def _audit_log(dataset: Dataset) -> None:
    log = dataset.interactions
    same_user = np.diff(log.user) == 0
    if np.any(np.diff(log.user) < 0) or np.any(np.diff(log.time)[same_user] < 0):
        raise _fault(dataset, "rows are not sorted by user and time")
    if not first_of_pair(log.user, log.item).all():
        raise _fault(dataset, "a user rated an item twice")


def _audit_truths(dataset: Dataset) -> None:
    log, split = dataset.interactions, dataset.split
    begin, end = log.offsets[:-1], log.offsets[1:]
    cutoff, everybody = split.cutoff, np.arange(log.n_users)
    inside = (begin <= cutoff) & np.where(split.truth >= 0, cutoff < end, cutoff == end)
    _require(dataset, everybody, inside, "the cutoff lies outside the user's rows")
    held_out = np.flatnonzero(split.truth >= 0)
    at_cutoff = log.item[cutoff[held_out]] == split.truth[held_out]
    _require(dataset, held_out, at_cutoff, "the truth is not the item at the cutoff")
    liked = log.rating[cutoff[held_out]] > split.like_above
    _require(dataset, held_out, liked, "the truth is not a liked item")
    # Items are unique within a user, so a truth at the cutoff cannot be in the history as well.


def _audit_groups(dataset: Dataset) -> None:
    split = dataset.split
    members = np.concatenate(list(split.users.values()))
    everybody = np.arange(len(split.truth))
    times_used = np.bincount(members, minlength=len(everybody))
    _require(dataset, everybody, times_used <= 1, "the user is in more than one group")
    _require(dataset, members, split.truth[members] >= 0, "the user has no truth")
    drawn = np.zeros(len(everybody), bool)
    drawn[compact(split.candidates).users] = True
    _require(dataset, everybody, drawn == (times_used == 1), "candidates and groups disagree")


def _audit_candidates(dataset: Dataset) -> None:
    log, split = dataset.interactions, dataset.split
    rated_by_somebody = np.zeros(log.n_items, bool)
    rated_by_somebody[log.item] = True
    for user in np.concatenate(list(split.users.values())):
        row, truth = split.candidates[user], split.truth[user]
        if not (0 <= row.min() <= row.max() < log.n_items):
            raise _fault(dataset, f"a candidate of user {user} is not in the catalogue")
        if len(np.unique(row)) < len(row) or truth not in row:
            raise _fault(dataset, f"the candidates of user {user} repeat or lack the truth")
        negatives = row[row != truth]
        own = log.item[log.offsets[user] : log.offsets[user + 1]]
        if np.isin(negatives, own).any():
            raise _fault(dataset, f"a negative of user {user} is an item the user rated")
        if not rated_by_somebody[negatives].all():
            raise _fault(dataset, f"a negative of user {user} was rated by nobody")


def _audit_demographics(dataset: Dataset) -> None:
    """No trait may name what the user did at or after the truth, as a column like "last bought" would."""
    log, split, catalog = dataset.interactions, dataset.split, dataset.catalog
    for user in np.concatenate(list(split.users.values())).tolist():
        values = {value.strip().casefold() for value in catalog.demographics[user].values()}
        if not values:
            continue
        for item in log.item[split.cutoff[user] : log.offsets[user + 1]]:
            if catalog.title[item].casefold() in values:
                raise _fault(
                    dataset, f"the demographics of user {user} name {catalog.title[item]!r}, rated later"
                )


def _require(dataset: Dataset, users: np.ndarray, holds: np.ndarray, fault: str) -> None:
    """Raises for the first of `users` for whom `holds` is False."""
    wrong = users[~holds]
    if len(wrong):
        raise _fault(dataset, f"user {wrong[0]}: {fault}")


def _fault(dataset: Dataset, fault: str) -> UserError:
    return UserError(
        f"data set {dataset.name!r} breaks its protocol: {fault}; make it again with python -m launch.prepare"
    )
