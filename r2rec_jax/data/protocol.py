"""The paper's split protocol: eligible users, held-out items, and candidates.

The paper keeps users with at least six ratings above 3. A user's held-out item (`truth` in code) is the last
item rated above 3. This row and all later ones are unseen. 19 negatives are drawn from the items that the
user never rated (data/negatives.py). Candidates are drawn once here, so that every method ranks the same
ones.
"""

import dataclasses

import numpy as np

from r2rec_jax.data.interactions import Interactions
from r2rec_jax.data.negatives import Candidates, draw_candidates
from r2rec_jax.runtime.errors import UserError

# Groups are filled in this order, so that changing a training size does not change the evaluation users.
SPLITS = ("evaluation", "validation", "sft", "grpo")


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Held-out items, disjoint groups of users and their frozen candidates.

    users: group name -> int32[n], in random order, so that a prefix is a random sample.
    truth: int32[n_users], the held-out item, or -1 if the user is not eligible.
    cutoff: int64[n_users], the row of the held-out item in Interactions. The history of user u is rows
      offsets[u]:cutoff[u]. For a user without held-out item it is offsets[u + 1], which includes all rows.
    candidates: int32[n_users, C], the held-out item and C - 1 negatives, shuffled. Rows of users in no
      group contain -1. `Candidates` stores only the rows of users in groups.
    like_above: a rating above it is a like.
    drawn_uniformly: number of negatives drawn uniformly as a replacement for popular or hard ones.
    """

    users: dict[str, np.ndarray]
    truth: np.ndarray
    cutoff: np.ndarray
    candidates: Candidates | np.ndarray
    like_above: float = 3.0
    drawn_uniformly: int = 0


def split(
    interactions: Interactions,
    *,
    seed: int,
    sizes: dict[str, int],
    candidates: int = 20,
    negatives: str = "uniform",
    min_likes: int = 6,
    like_above: float = 3.0,
) -> Split:
    """Holds out one item per eligible user, assigns users to groups of `sizes`, and draws their candidates.

    Raises:
      UserError: an unknown group or kind of negatives, a bad size, fewer eligible users than the sizes need,
        or a user with too few unrated items to draw negatives from.
    """
    unknown = sorted(set(sizes) - set(SPLITS))
    if unknown:
        raise UserError(f"unknown user group {unknown[0]!r} in sizes: use {', '.join(SPLITS)}")
    if candidates < 2 or min(sizes.values(), default=0) < 0:
        raise UserError(
            f"candidates={candidates}, sizes={dict(sizes)}: need at least 2 candidates (the held-out item "
            "and a negative) and no negative size"
        )
    truth, cutoff = hold_out(interactions, min_likes, like_above)
    eligible = np.flatnonzero(truth >= 0)
    _require_eligible(len(eligible), sizes, min_likes, like_above)
    users = _assign(eligible, interactions.n_users, seed, sizes)
    rows, replaced = draw_candidates(
        interactions,
        np.concatenate(list(users.values())),
        truth,
        cutoff,
        count=candidates,
        negatives=negatives,
        seed=seed,
    )
    return Split(users, truth, cutoff, rows, like_above, replaced)


def hold_out(interactions: Interactions, min_likes: int, like_above: float) -> tuple[np.ndarray, np.ndarray]:
    """`Split.truth` int32[n_users] and `Split.cutoff` int64[n_users]."""
    liked_rows = np.flatnonzero(interactions.rating > like_above)
    liked_by = interactions.user[liked_rows]
    likes = np.bincount(liked_by, minlength=interactions.n_users)
    last_like = np.full(interactions.n_users, -1, np.int64)
    np.maximum.at(last_like, liked_by, liked_rows)
    eligible = (likes >= min_likes) & (likes > 0)
    truth = np.full(interactions.n_users, -1, np.int32)
    truth[eligible] = interactions.item[last_like[eligible]]
    cutoff = np.where(eligible, last_like, interactions.offsets[1:])
    return truth, cutoff


def _require_eligible(eligible: int, sizes: dict[str, int], min_likes: int, like_above: float) -> None:
    """Raises UserError if the sizes need more users than are eligible. It suggests sizes that fit."""
    wanted = sum(sizes.values())
    if wanted <= eligible:
        return
    largest = max(sizes, key=lambda name: sizes[name])
    fit = {largest: sizes[largest] - (wanted - eligible)}
    if fit[largest] < eligible / 4:  # shrinking only one group is not enough, so shrink all in proportion
        fit = {name: size * eligible // wanted for name, size in sizes.items() if size}
    sizes_that_fit = " ".join(f"--config.data.sizes.{name}={size}" for name, size in fit.items())
    remedy = f"the sizes, as by {sizes_that_fit}, or data.min_likes" if eligible else "data.min_likes"
    raise UserError(
        f"the split asks for {wanted} users but only {eligible} are eligible, with at least {min_likes} "
        f"ratings above {like_above:g}: lower {remedy} or data.like_above, or give more data"
    )


def _assign(eligible: np.ndarray, n_users: int, seed: int, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    # Every user gets a random key, eligible or not, so that one user's group does not depend on the others.
    lottery = np.random.default_rng(seed).random(n_users)
    queue = eligible[np.argsort(lottery[eligible], kind="stable")].astype(np.int32)
    users, start = {}, 0
    for name in SPLITS:
        size = sizes.get(name, 0)
        users[name] = queue[start : start + size]
        start += size
    return users
