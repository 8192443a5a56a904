"""Ties in time against the truths that data.ties=random really gives, and against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.base import base
from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.protocol import hold_out
from r2rec_jax.data.sources import make_dataset, tied_truths

NOON = 1394020800
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 2), st.integers(0, 1)),
    min_size=4,
    max_size=40,
)


def logs(rows, tie_seed, seconds_only=False):
    """(log, rules) of rows of user, rating, second and part of a second; every row has an item of its own."""
    user, rating, second, fine = map(np.array, zip(*rows, strict=True))
    rules = Rules(tie_seed=tie_seed)
    log = rules.log(
        user=user,
        item=np.arange(len(user)),
        rating=rating.astype(np.float32),
        time=NOON + second,
        fine=None if seconds_only else fine * 5,
        n_users=4,
        n_items=len(user),
        where="log",
    )
    return log, rules


@given(ROWS, st.booleans(), st.integers(0, 20))
def test_ties_are_those_that_a_random_order_moves(rows, seconds_only, seed):
    rows = [*rows, (0, 5, 0, 0), (0, 4, 0, 0)]  # so that there is a scale
    log, rules = logs(rows, None, seconds_only)
    truth, cutoff = hold_out(log, 1, 3.0)
    split = type("Split", (), {"truth": truth, "cutoff": cutoff, "like_above": 3.0})
    found = tied_truths(rules, type("Dataset", (), {"interactions": log, "split": split}), seed)

    clock = [(user, second, 0 if seconds_only else fine) for user, _, second, fine in rows]
    tied = sum(clock.count(clock[item]) > 1 for item in truth[truth >= 0])
    other_truth, _ = hold_out(logs(rows, seed, seconds_only)[0], 1, 3.0)
    moved = int((other_truth != truth).sum())
    assert found == {"truths_tied_in_time": tied, "truths_others_under_random_ties": moved}


def config_of(folder, **table):
    config = base().data
    config.update({"source": "table", "raw": str(folder), "min_likes": 1, "candidates": 2})
    config.sizes = {"evaluation": 1}
    config.table.update({"ratings": "log.csv"} | table)
    return config


@pytest.mark.parametrize(
    ("ties", "expected"),
    [
        ("file", {"truths_tied_in_time", "truths_others_under_random_ties"}),
        ("random", {"truths_tied_in_time"}),
    ],
)
def test_a_data_set_counts_its_ties(tmp_path, ties, expected):
    rows = "".join(f"u{u},i{(u + 3 * k) % 11},{3 + k % 3},{NOON}\n" for u in range(4) for k in range(5))
    (tmp_path / "log.csv").write_text(f"user,item,rating,time\n{rows}", encoding="utf-8")
    config, rules = config_of(tmp_path), Rules()
    config.ties = ties
    found = tied_truths(rules, make_dataset(config, rules=rules), config.seed)
    assert found.keys() == expected and found["truths_tied_in_time"] == 4


def test_an_order_has_no_ties(tmp_path):
    rows = "".join(f"u{u},i{(u + 3 * k) % 11}\n" for u in range(4) for k in range(5))
    (tmp_path / "log.csv").write_text(f"user,item\n{rows}", encoding="utf-8")
    config, rules = config_of(tmp_path, rating="", time=""), Rules()
    assert tied_truths(rules, make_dataset(config, rules=rules), 0) == {}
