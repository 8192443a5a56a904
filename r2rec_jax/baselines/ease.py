"""EASE^R (Steck 2019, "Embarrassingly Shallow Autoencoders"): a linear item-item model.

The weights are computed in closed form:

min_B |X - XB|^2 + l2 |B|^2   with diag(B) = 0
P = (X'X + l2 I)^-1,   B_ij = -P_ij / P_jj  (i != j)
"""

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from r2rec_jax.baselines.observed import candidates_of, observed_matrix, profile_matrix
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError

_MOST_ITEMS = 40_000  # 6.4 GB per float32 matrix; a dense inverse of more items is not practical


def fit_score(dataset: Dataset, users: np.ndarray, *, l2: float = 2000.0, profile: str = "all") -> np.ndarray:
    """Scores float64[len(users), C]. `profile` as in `observed.profile_matrix`. l2 2000 suits ML-1M."""
    observed = observed_matrix(dataset)
    candidates = candidates_of(dataset, users)
    weights = fit(observed, l2=l2)
    profiles = profile_matrix(dataset, users, profile, observed)
    scores = np.asarray(profiles @ weights)
    return np.take_along_axis(scores, candidates, axis=1).astype(np.float64)


def check_size(n_items: int) -> None:
    """Raises UserError if the catalogue is too large for a dense inverse."""
    if n_items > _MOST_ITEMS:
        raise UserError(
            f"ease: {n_items} items need a dense {n_items} x {n_items} inverse, over the limit of "
            f"{_MOST_ITEMS}; leave ease out of the baselines for this data"
        )


def fit(observed: sparse.csr_array, *, l2: float) -> np.ndarray:
    """The weights B, float32[n_items, n_items], with zero diagonal.

    Raises:
        UserError: l2 is not positive, or the catalogue is too large for a dense inverse.
    """
    n_items = observed.shape[1]
    if l2 <= 0:
        raise UserError(f"ease: l2 is {l2}; it must be above 0, or the Gram matrix may not invert")
    check_size(n_items)
    gram = np.asfortranarray((observed.T @ observed).toarray(), dtype=np.float32)
    gram[np.diag_indices(n_items)] += np.float32(l2)
    # In-place Cholesky: a third of the operations of a general inverse, and no second copy of the matrix.
    factor, failed = lapack.spotrf(gram, lower=True, overwrite_a=True)
    if not failed:
        lower, failed = lapack.spotri(factor, lower=True, overwrite_c=True)
    if failed:
        raise UserError(f"ease: the Gram matrix with l2 {l2} does not invert; raise l2")
    inverse = np.tril(lower) + np.tril(lower, -1).T
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights
