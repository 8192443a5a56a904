"""What metrics.json says of a system, and of two systems on the same users."""

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
    """Metrics over all users, with intervals, and HR@1 by where the truth stood, by how active the user
    and how popular the truth is.

    Args:
        users: int[n], users that have candidates.
        rank_RN: int[R, n], the truth's rank in each of R runs, from 1; 0 for a miss.
        seed: of the resampling.
        ks: cut-offs of HR and NDCG, 1 among them.

    Returns:
        JSON-ready: the names of `metrics.summarise`; "users", "runs"; "ci95" {metric: [low, high]}, where
        a user's value is the mean of the runs; "hr@1_by_position", None where no truth stood;
        "hr@1_by_activity" and "hr@1_by_popularity" as `by_quartile` makes them, of the user's ratings
        before the cutoff and of the truth's ratings that may be seen (each before its rater's cutoff).

    Raises:
        UserError: a user without candidates, ranks that are not one a run and user, or beyond the candidates.
    """
    users, rank_RN = np.asarray(users), np.asarray(rank_RN)
    log, split = dataset.interactions, dataset.split
    candidates, truth = split.candidates[users], split.truth[users]
    if (missing := (candidates < 0).any(axis=1)).any():
        raise UserError(
            f"metrics: user {users[missing.argmax()]} has no candidates; evaluate users of a split"
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
    """HR@1 of the quarter of the users with the lowest counts, and so on; users of equal counts stay
    together, so there may be fewer than four groups.

    Args:
        hit: float[n]. count: int[n].

    Returns:
        {"from", "to": the least and the largest count, "users", "hr@1", "ci95": [low, high]} of each.
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
    """Ranks of system a less system b on the same users in the same order; each may have runs of its own
    number. `difference` of HR@1 and of NDCG@3."""
    a, b = per_user(a_RN), per_user(b_RN)
    return {name: difference(a[name], b[name], seed) for name in COMPARED}


def difference(a: np.ndarray, b: np.ndarray, seed: int) -> dict:
    """{"difference": of the means, "ci95": [low, high], "p": of `sign_flip_p`}; a, b: float[n], by user."""
    interval = list(paired_ci(a, b, seed))
    return {"difference": float(np.mean(a - b)), "ci95": interval, "p": sign_flip_p(a - b, seed)}
