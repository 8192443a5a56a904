"""Equal times: where a log has them, the order of its rows decides which item is held out."""

import numpy as np

from r2rec_jax.data.interactions import BLOCK, Interactions


def shuffled(rows: int, seed: int) -> np.ndarray:
    """The order in which data.ties=random takes the rows of a file: int64[rows]."""
    return np.random.default_rng([seed, 2]).permutation(rows)


def begins_moment(log: Interactions, place: np.ndarray, fine: np.ndarray | None) -> np.ndarray:
    """Whether a row of the log is later than the user's row before it: bool[N].

    place: int64[N], where each row is in the file. fine: parts of a second of the file's rows, or None.
    """
    begins = np.ones(len(log), bool)
    # Blocks overlap by one row: each is compared with the one before it.
    for start in range(1, len(log), BLOCK):
        now, before = slice(start, start + BLOCK), slice(start - 1, min(start + BLOCK, len(log)) - 1)
        same = (log.user[now] == log.user[before]) & (log.time[now] == log.time[before])
        if fine is not None:
            same &= fine[place[now]] == fine[place[before]]
        begins[now] = ~same
    return begins


def count(
    log: Interactions, begins: np.ndarray, place: np.ndarray, cutoff: np.ndarray, held_out: np.ndarray,
    *, like_above: float, order: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """How many held-out items share their time with another row of their user, and how many would be others
    if rows of one time were taken in `order`, a `shuffled` of the file's rows.

    cutoff: int64[n_users], as in `Split`. held_out: the users who have a truth.
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
