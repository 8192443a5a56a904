"""Windows of histories against plain loops."""

import dataclasses

import numpy as np
import pytest

from r2rec_jax.baselines.sequences import NextItemBatches, recent_items
from r2rec_jax.runtime.errors import UserError


def history(dataset, user) -> list[int]:
    return dataset.interactions.item[dataset.history(user)].tolist()


@pytest.mark.parametrize("length", [3, 5, 50])
def test_an_epoch_has_every_interaction_but_the_first_as_a_target_once(dataset, length):
    batches = NextItemBatches(dataset, length=length, batch_size=1, seed=0)
    found = []
    for k in range(batches.per_epoch):
        batch = batches[k]
        user = int(batch["user"][0])
        own, known = history(dataset, user), batch["mask"][0] > 0
        items, target = batch["items"][0][known].tolist(), batch["target"][0][known].tolist()
        place = own.index(items[0])  # nobody rates an item twice
        assert own[place : place + len(items)] == items
        assert own[place + 1 : place + 1 + len(items)] == target
        assert known.tolist() == sorted(known.tolist(), reverse=True), "padding is on the right"
        found += [(user, item) for item in target]
    expected = [(user, item) for user in range(40) for item in history(dataset, user)[1:]]
    assert sorted(found) == sorted(expected)


def test_batches_are_functions_of_seed_and_number(dataset):
    one, other = (NextItemBatches(dataset, length=4, batch_size=8, seed=3) for _ in range(2))
    for k in (17, 0, 5):
        for name, rows in one[k].items():
            assert rows.shape[0] == 8
            np.testing.assert_array_equal(rows, other[k][name])
    cuts = {tuple(one[k]["items"][:, 0].tolist()) for k in range(4)}
    assert len(cuts) == 4
    assert (NextItemBatches(dataset, length=4, batch_size=8, seed=4)[0]["items"] != one[0]["items"]).any()


def test_recent_items_by_loops(dataset, users):
    items, length = recent_items(dataset, users, 4)
    for row, user in enumerate(users):
        own = history(dataset, user)[-4:]
        assert length[row] == len(own)
        assert items[row].tolist() == own + [0] * (4 - len(own))


def test_what_comes_after_the_cutoffs_is_in_no_window(dataset, changed_after_cutoffs, users):
    for k in range(5):
        one, other = (
            NextItemBatches(data, length=4, batch_size=8, seed=3)[k]
            for data in (dataset, changed_after_cutoffs)
        )
        assert all((one[name] == other[name]).all() for name in one)
    one, other = (recent_items(data, users, 9) for data in (dataset, changed_after_cutoffs))
    np.testing.assert_array_equal(one[0], other[0])


def test_nothing_to_learn_from_is_said(dataset):
    begin = np.asarray(dataset.interactions.offsets[:-1])
    nothing = dataclasses.replace(dataset, split=dataclasses.replace(dataset.split, cutoff=begin))
    with pytest.raises(UserError, match="two items before the cutoff"):
        NextItemBatches(nothing, length=3, batch_size=2, seed=0)
    with pytest.raises(UserError, match="at least 1"):
        NextItemBatches(dataset, length=0, batch_size=2, seed=0)
