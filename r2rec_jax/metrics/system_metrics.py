"""The content of metrics.json: the metrics of a system, and of two systems on the same users."""

from collections.abc import Sequence

import numpy as np

from r2rec_jax.data.prepared import Dataset
from r2rec_jax.metrics.intervals import bootstrap_ci, ci95, paired_ci, sign_flip_p
from r2rec_jax.metrics.ranking_metrics import hr_by_position, per_user, summarise
from r2rec_jax.runtime.errors import UserError

COMPARED = ("hr@1", "ndcg@3")


def measure(
    dataset: Dataset, users: np.ndarray, rank_RN: np.ndarray, seed: int, ks: Sequence[int] = (1, 3)
) -> dict:
    """Metrics with confidence intervals, and HR@1 by position, by user activity and by item popularity.

    Args:
        users: int[n], users with candidates.
        rank_RN: int[R, n], rank of the held-out item in each of R runs, from 1; 0 for a miss.
        seed: seed of the resampling.
        ks: cut-offs of HR and NDCG, including 1.

    Returns:
        A JSON object with the keys of `ranking_metrics.summarise`, and:
        "users", "runs": their numbers.
        "ci95": {metric: [low, high]}, where a user's value is the mean over the runs.
        "hr@1_by_position": a list over the positions of the held-out item, None without users.
        "hr@1_by_activity": `by_quartile` of the user's number of ratings before the cutoff.
        "hr@1_by_popularity": `by_quartile` of the held-out item's number of visible ratings.

    Raises:
        UserError: a user without candidates, or ranks of the wrong shape or above the number of candidates.
    """
    users, rank_RN = np.asarray(users), np.asarray(rank_RN)
    log, split = dataset.interactions, dataset.split
    candidates, truth = split.candidates[users], split.truth[users]
    if (missing := (candidates < 0).any(axis=1)).any():
        raise UserError(
            f"metrics: user {users[missing.argmax()]} has no candidates; evaluate users of the split"
        )
    if rank_RN.shape[1:] != users.shape or rank_RN.max(initial=0) > candidates.shape[1]:
        raise UserError(
            f"metrics: ranks {rank_RN.shape} up to {rank_RN.max(initial=0)} are not of "
            f"[runs, {len(users)} users] among {candidates.shape[1]} candidates; evaluate again"
        )
    hit = per_user(rank_RN)["hr@1"]
    seen = np.arange(len(log.item)) < split.cutoff[log.user]
    popularity = np.bincount(log.item[seen], minlength=log.n_items)[truth]
    return summarise(rank_RN, ks) | {
        "users": len(users),
        "runs": len(rank_RN),
        "ci95": ci95(rank_RN, seed, ks),
        "hr@1_by_position": hr_by_position(hit, candidates, truth),
        "hr@1_by_activity": by_quartile(hit, split.cutoff[users] - log.offsets[users], seed),
        "hr@1_by_popularity": by_quartile(hit, popularity, seed),
    }


def by_quartile(hit: np.ndarray, count: np.ndarray, seed: int) -> list[dict]:
    """HR@1 of the quartiles of users by `count`, ascending.

    Users with equal counts are in the same group, so there may be fewer than four groups.

    Args:
        hit: float[n]. count: int[n].

    Returns:
        A list of {"from", "to": the smallest and largest count, "users", "hr@1", "ci95": [low, high]}.
    """
    ends = np.quantile(count, (0.25, 0.5, 0.75), method="inverted_cdf")
    group = np.searchsorted(ends, count)
    rows = []
    for k in np.unique(group):
        counts, hits = count[group == k], hit[group == k]
        rows.append(
            {
                "from": int(counts.min()),
                "to": int(counts.max()),
                "users": len(counts),
                "hr@1": float(hits.mean()),
                "ci95": list(bootstrap_ci(hits, seed)),
            }
        )
    return rows


def paired(a_RN: np.ndarray, b_RN: np.ndarray, seed: int) -> dict[str, dict]:
    """`difference` of HR@1 and of NDCG@3 of systems a and b, from ranks int[R, n] of the same users.

    The order of the users must be the same. The numbers of runs may differ.
    """
    a, b = per_user(a_RN), per_user(b_RN)
    return {name: difference(a[name], b[name], seed) for name in COMPARED}


def difference(a: np.ndarray, b: np.ndarray, seed: int) -> dict:
    """Compares values a, b float[n] of the same users.

    Returns {"difference": mean(a - b), "ci95": [low, high], "p": `sign_flip_p`}.
    """
    interval = list(paired_ci(a, b, seed))
    return {"difference": float(np.mean(a - b)), "ci95": interval, "p": sign_flip_p(a - b, seed)}
