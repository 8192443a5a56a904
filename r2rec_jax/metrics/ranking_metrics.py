"""Ranking metrics from the rank of the held-out item among each user's candidates.

Ranks are 1-based. 0 is a miss: the answer lacks the held-out item or could not be parsed. Every user is
counted, so all means are over all users. A system that samples may be run R times; a user's value is then the
mean over the runs.
"""

from collections.abc import Sequence

import numpy as np

from r2rec_jax.runtime.errors import UserError


def ranks_from_scores(scores: np.ndarray, candidates: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rank of each user's held-out item when candidates are sorted by descending score.

    Ties keep the stored order of the candidates, which was shuffled and frozen with the split. Ties are
    therefore broken at random, and equally for every system.

    Args:
        scores: float[n, C], higher is better.
        candidates: int[n, C], item numbers.
        truth: int[n], held-out items, each in its row of candidates.

    Returns:
        int32[n], 1..C.

    Raises:
        UserError: shapes differ, a score is NaN, or a held-out item is not exactly once in its row.
    """
    scores, candidates, truth = np.asarray(scores), np.asarray(candidates), np.asarray(truth)
    if scores.shape != candidates.shape or truth.shape != candidates.shape[:1]:
        raise UserError(
            f"ranking: scores {scores.shape}, candidates {candidates.shape} and truth "
            f"{truth.shape} do not match; pass [n, C], [n, C] and [n] of the same users"
        )
    if np.isnan(scores).any():  # comparisons with NaN are false, so a NaN would get rank 1
        row = int(np.argwhere(np.isnan(scores))[0, 0])
        raise UserError(f"ranking: a score in row {row} is not a number; fix the scorer")
    is_truth = candidates == truth[:, None]
    if (is_truth.sum(axis=1) != 1).any():
        row = int(np.argmax(is_truth.sum(axis=1) != 1))
        raise UserError(
            f"ranking: the held-out item {truth[row]} of row {row} is not exactly once among its "
            "candidates; prepare the data again"
        )
    position = is_truth.argmax(axis=1)
    own = np.take_along_axis(scores, position[:, None], axis=1)
    tied_before = (scores == own) & (np.arange(scores.shape[1]) < position[:, None])
    return (1 + ((scores > own) | tied_before).sum(axis=1)).astype(np.int32)


def per_user(ranks: np.ndarray, ks: Sequence[int] = (1, 3)) -> dict[str, np.ndarray]:
    """Each user's value of every metric: `hr@k` for each k, `ndcg@k` for each k > 1, and `mrr`.

    NDCG@1 equals HR@1 and is omitted. With one relevant item the ideal gain is 1, so a user's NDCG@k is
    1 / log2(1 + rank) for ranks up to k, else 0.

    Args:
        ranks: int[n], or int[R, n] for R runs; 1-based, 0 for a miss.

    Returns:
        name -> float64[n], the mean over the runs, in [0, 1].
    """
    ranks = np.asarray(ranks)
    if ranks.ndim not in (1, 2) or ranks.size == 0 or ranks.min() < 0:
        raise UserError(
            f"metrics: ranks of shape {ranks.shape} are not non-negative [users] or [runs, users]; evaluate "
            "at least one user"
        )
    ranks = np.atleast_2d(ranks)
    ranked = ranks > 0
    safe = np.where(ranked, ranks, 1)
    values = {f"hr@{k}": (ranked & (ranks <= k)).astype(np.float64) for k in ks}
    for k in ks:
        if k > 1:
            values[f"ndcg@{k}"] = np.where(ranked & (ranks <= k), 1 / np.log2(1.0 + safe), 0.0)
    values["mrr"] = np.where(ranked, 1 / safe, 0.0)
    return {name: value.mean(axis=0) for name, value in values.items()}


def summarise(ranks: np.ndarray, ks: Sequence[int] = (1, 3)) -> dict[str, float]:
    """Means over all users. The default keys are "hr@1", "hr@3", "ndcg@3" and "mrr"."""
    means = {name: float(value.mean()) for name, value in per_user(ranks, ks).items()}
    first = float((np.asarray(ranks) == 1).mean())
    for k in ks:
        if k > 1:
            low, high = ndcg_bounds(first, means[f"hr@{k}"], k)
            assert low - 1e-9 <= means[f"ndcg@{k}"] <= high + 1e-9, (k, means)
    return means


def ndcg_bounds(hr_1: float, hr_k: float, k: int) -> tuple[float, float]:
    """(low, high) of NDCG@k given HR@1 and HR@k. Hits at ranks 2..k have gains between those of k and 2."""
    beyond = hr_k - hr_1
    return hr_1 + beyond / np.log2(1.0 + k), hr_1 + beyond / np.log2(3.0)


def chance(candidates: int) -> dict[str, float]:
    """Expected metrics of a random order of `candidates` items, one of them relevant."""
    gains = 1 / np.log2(1.0 + np.arange(1, min(3, candidates) + 1))
    return {
        "hr@1": 1 / candidates,
        "hr@3": min(3, candidates) / candidates,
        "ndcg@3": float(gains.sum()) / candidates,
    }


def hr_by_position(hit: np.ndarray, candidates: np.ndarray, truth: np.ndarray) -> list[float | None]:
    """HR@1 by the position 0, 1, ..., C-1 of the held-out item among the candidates; None without users.

    Equal values mean that the ranker has no position bias.

    Args:
        hit: float[n], `per_user`'s "hr@1".
        candidates: int[n, C] in the order of the prompt.
        truth: int[n].
    """
    position = (np.asarray(candidates) == np.asarray(truth)[:, None]).argmax(axis=1)
    width = np.asarray(candidates).shape[1]
    users = np.bincount(position, minlength=width)
    hits = np.bincount(position, weights=hit, minlength=width)
    return [float(h / n) if n else None for h, n in zip(hits, users, strict=True)]
