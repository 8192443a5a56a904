"""Random order of the candidates, the lower bound for every other system."""

import numpy as np

from r2rec_jax.data.prepared import Dataset


def fit_score(dataset: Dataset, users: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Uniform random scores, float64[len(users), C]. A user's scores depend on (seed, user) only."""
    width = dataset.split.candidates.shape[1]
    return np.array([np.random.default_rng([seed, int(user)]).random(width) for user in users])
