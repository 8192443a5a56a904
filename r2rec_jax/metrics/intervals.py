"""Bootstrap confidence intervals over users, and a test of two systems on the same users.

Users are the unit of sampling: a table of 1,000 users has a standard error of about .015 in HR@1,
and a difference of two systems on the same users is far better known than either (`paired_ci`).
"""

from collections.abc import Sequence

import numpy as np

from r2rec_jax.metrics.ranking_metrics import per_user
from r2rec_jax.runtime.errors import UserError

_DRAWS_PER_BLOCK = 1 << 21  # 16 MB of int64 user indices at a time


def bootstrap_ci(
    values: np.ndarray, seed: int, samples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of one value a user.

    Args:
        values: float[n].
        seed: fixes the resampling, so a report can be made again.
        samples: number of resampled means.
        level: coverage, in (0, 1).

    Returns:
        (low, high).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not 0 < level < 1 or samples < 1:
        raise UserError(
            f"bootstrap: values {values.shape}, samples {samples}, level {level} give no interval; "
            "pass one value a user, samples >= 1 and a level between 0 and 1"
        )
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWS_PER_BLOCK // values.size)
    means = np.empty(samples)
    for start in range(0, samples, rows):
        stop = min(start + rows, samples)
        drawn = rng.integers(values.size, size=(stop - start, values.size))
        means[start:stop] = values[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_ci(
    a: np.ndarray, b: np.ndarray, seed: int, samples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Interval of mean(a - b), two systems' float[n] on the same users in the same order."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise UserError(
            f"bootstrap: {a.shape} and {b.shape} values are not paired; "
            "evaluate both systems on the same users"
        )
    return bootstrap_ci(a - b, seed, samples, level)


def sign_flip_p(difference: np.ndarray, seed: int, samples: int = 9999) -> float:
    """Two-sided p of a paired randomisation test: were the two systems alike, each user's difference
    could as well have the other sign.

    The share of random sign patterns, the observed one among them, whose mean is as far from 0: at least
    1 / (samples + 1), and 1 where no user differs.

    Args:
        difference: float[n], one system's value less the other's.
    """
    difference = np.asarray(difference, dtype=np.float64)
    difference = difference[difference != 0]  # their signs change nothing
    observed, n = abs(difference.sum()), difference.size
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWS_PER_BLOCK // max(n, 1))
    as_far = 1
    for start in range(0, samples, rows):
        signs = rng.integers(0, 2, size=(min(rows, samples - start), n), dtype=np.int8)
        sums = signs @ (2 * difference) - difference.sum()
        as_far += int((np.abs(sums) >= observed - 1e-9).sum())  # sums of the same numbers in other orders
    return as_far / (samples + 1)


def ci95(ranks: np.ndarray, seed: int, ks: Sequence[int] = (1, 3)) -> dict[str, list[float]]:
    """The `ci95` object of metrics.json: [low, high] for each metric of `metrics.summarise`, whose `ranks`
    these are."""
    return {name: list(bootstrap_ci(values, seed)) for name, values in per_user(ranks, ks).items()}
