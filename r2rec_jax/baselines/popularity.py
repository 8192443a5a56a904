"""Popularity: the number of users who rated an item before their cutoffs."""

import numpy as np

from r2rec_jax.baselines.observed import candidates_of, observed_matrix
from r2rec_jax.data.prepared import Dataset


def fit_score(dataset: Dataset, users: np.ndarray) -> np.ndarray:
    """Counts, float64[len(users), C]."""
    counts = np.asarray(observed_matrix(dataset).sum(axis=0), dtype=np.float64)
    return counts[candidates_of(dataset, users)]
