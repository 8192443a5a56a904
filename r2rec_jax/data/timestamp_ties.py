"""Rows with equal times. Their order in the log determines which item is held out."""

import numpy as np

from r2rec_jax.data.interactions import BLOCK, Interactions


def shuffled(rows: int, seed: int) -> np.ndarray:
    """The order of the rows of a file with data.ties=random: int64[rows]."""
    return np.random.default_rng([seed, 2]).permutation(rows)


def begins_moment(log: Interactions, place: np.ndarray, fine: np.ndarray | None) -> np.ndarray:
    """Whether each row of the log is later than the user's previous row: bool[N].

    place: int64[N], the position of each row in the file. fine: fractions of a second of the file's rows, or
    None.
    """
    begins = np.ones(len(log), bool)
    # Compares each row with the previous one, in blocks.
    for start in range(1, len(log), BLOCK):
        rows = slice(start, start + BLOCK)
        previous = slice(start - 1, min(start + BLOCK, len(log)) - 1)
        same = (log.user[rows] == log.user[previous]) & (log.time[rows] == log.time[previous])
        if fine is not None:
            same &= fine[place[rows]] == fine[place[previous]]
        begins[rows] = ~same
    return begins


def count(
    log: Interactions, begins: np.ndarray, place: np.ndarray, cutoff: np.ndarray, held_out: np.ndarray,
    *, like_above: float, order: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Counts tied held-out items, and those that would change if ties were broken by `order`.

    A held-out item is tied if another row of its user has the same time.

    cutoff: int64[n_users], as in `Split`. held_out: users with a held-out item.
    order: int64[rows], as returned by `shuffled`.
    """
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    end = np.append(np.flatnonzero(begins), len(log))
    moment = np.searchsorted(end, cutoff[held_out], side="right")
    tied = moved = 0
    for user, k in zip(held_out.tolist(), moment.tolist(), strict=True):
        rows = np.arange(end[k - 1], end[k])
        tied += len(rows) > 1
        liked = rows[log.rating[rows] > like_above]
        moved += liked[np.argmax(rank[place[liked]])] != cutoff[user]
    return int(tied), int(moved)
