"""Item-based nearest neighbours (Sarwar et al. 2001) with shrunk cosine similarity (Dacrema et al. 2019).

    s_ij = n_ij / (sqrt(n_i n_j) + shrink)

where n_i users rated i and n_ij rated both. A candidate's score is the sum of its similarities to those of
its k nearest items that are in the user's profile. (Using the k nearest items of each profile item instead
gives HR@1 .43 instead of .48 on MovieLens-1M.)
"""

import numpy as np
from scipy import sparse

from r2rec_jax.baselines.observed import candidates_of, observed_matrix, profile_matrix
from r2rec_jax.data.prepared import Dataset

_CELLS_PER_BLOCK = 1 << 24  # 64 MB of float32 similarities per block


def fit_score(
    dataset: Dataset,
    users: np.ndarray,
    *,
    k: int = 50,
    shrink: float = 10.0,
    profile: str = "all",
) -> np.ndarray:
    """Summed similarities, float64[len(users), C]. See `observed.profile_matrix` for `profile`."""
    observed = observed_matrix(dataset)
    candidates = candidates_of(dataset, users)
    # Neighbours are computed for candidates only, so that catalogues of millions of items are feasible.
    items, slot = np.unique(candidates, return_inverse=True)
    near = neighbours(observed, items, k=k, shrink=shrink)
    scores = profile_matrix(dataset, users, profile, observed) @ near.T
    return np.stack(
        [scores[[row]].toarray()[0, columns] for row, columns in enumerate(slot.reshape(candidates.shape))]
    ).astype(np.float64)


def neighbours(observed: sparse.csr_array, items: np.ndarray, *, k: int, shrink: float) -> sparse.csr_array:
    """Each item's k largest similarities to other items: float32[len(items), n_items]."""
    n_items = observed.shape[1]
    counts = np.asarray(observed.sum(axis=0), dtype=np.float32)
    by_item = observed.T.tocsr()
    k = min(k, n_items)
    step = max(1, _CELLS_PER_BLOCK // n_items)
    blocks = []
    for start in range(0, len(items), step):
        block = items[start : start + step]
        rows = np.arange(len(block))[:, None]
        both = (by_item[block] @ observed).toarray()
        scale = (counts[block][:, None] * counts) ** 0.5 + shrink
        similarity = np.divide(both, scale, out=np.zeros_like(both), where=scale > 0)
        similarity[rows[:, 0], block] = 0
        best = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        kept = sparse.coo_array(
            (
                similarity[rows, best].ravel(),
                (np.broadcast_to(rows, best.shape).ravel(), best.ravel()),
            ),
            shape=(len(block), n_items),
        )
        blocks.append(kept)
    return sparse.vstack(blocks, format="csr")
