"""The interactions before the cutoffs, which baselines train on, as sparse binary matrices."""

import numpy as np
from scipy import sparse

from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError


def observed_matrix(dataset: Dataset) -> sparse.csr_array:
    """float32[n_users, n_items], 1 where the user rated the item before the user's cutoff.

    All rows of users without a held-out item are included. Ratings of any value count, since the choice of
    rated items is more informative than the rating values.
    """
    log = dataset.interactions
    seen = np.arange(len(log.item)) < dataset.split.cutoff[log.user]
    rows, columns = log.user[seen], log.item[seen]
    ones = np.ones(len(rows), dtype=np.float32)
    return sparse.csr_array((ones, (rows, columns)), shape=(log.n_users, log.n_items))


def profile_matrix(
    dataset: Dataset, users: np.ndarray, profile: str, observed: sparse.csr_array
) -> sparse.csr_array:
    """The items that represent each user when candidates are scored, float32[len(users), n_items].

    Args:
        profile: "all" items rated before the held-out item, or "recent_likes", the last five likes.
    """
    if profile == "all":
        return observed[users]
    if profile != "recent_likes":
        raise UserError(f"baselines: profile {profile!r} is unknown; use 'all' or 'recent_likes'")
    likes = [dataset.recent_likes(int(user), 5) for user in users]
    indptr = np.concatenate([[0], np.cumsum([len(items) for items in likes])])
    indices = np.concatenate([np.empty(0, dtype=np.int32), *likes])
    ones = np.ones(len(indices), dtype=np.float32)
    return sparse.csr_array((ones, indices, indptr), shape=(len(users), observed.shape[1]))


def candidates_of(dataset: Dataset, users: np.ndarray) -> np.ndarray:
    """The users' candidates, int32[len(users), C]. Raises UserError if a user is in no group of the split."""
    candidates = np.asarray(dataset.split.candidates[users])
    if (candidates < 0).any():  # -1 would silently index the catalogue's last item
        user = users[int(np.argmax((candidates < 0).any(axis=1)))]
        raise UserError(
            f"baselines: user {user} has no candidates; choose users from the groups of the split"
        )
    return candidates
