import dataclasses

import numpy as np
import pytest

from r2rec_jax.data.audit import audit
from r2rec_jax.data.interactions import Interactions
from r2rec_jax.runtime.errors import UserError


def with_split(dataset, **changes):
    return dataclasses.replace(dataset, split=dataclasses.replace(dataset.split, **changes))


def test_a_sound_data_set_passes(small_dataset):
    audit(small_dataset)


def test_truth_in_the_history(small_dataset):
    user = small_dataset.split.users["sft"][0]
    cutoff = small_dataset.split.cutoff.copy()
    cutoff[user] += 1  # the history now reaches past the truth
    with pytest.raises(UserError, match="cutoff"):
        audit(with_split(small_dataset, cutoff=cutoff))


def test_truth_is_another_item(small_dataset):
    user = small_dataset.split.users["sft"][0]
    truth = small_dataset.split.truth.copy()
    truth[user] = (truth[user] + 1) % 64
    with pytest.raises(UserError, match=f"user {user}: the truth"):
        audit(with_split(small_dataset, truth=truth))


def test_candidate_from_the_history(small_dataset):
    split = small_dataset.split
    user = split.users["evaluation"][3]
    candidates = split.candidates.copy()
    place = np.flatnonzero(candidates[user] != split.truth[user])[0]
    rows = small_dataset.history(user)
    candidates[user, place] = small_dataset.interactions.item[rows][0]
    with pytest.raises(UserError, match=f"negative of user {user}"):
        audit(with_split(small_dataset, candidates=candidates))


@pytest.mark.parametrize("value", ["twice", "absent", "outside"])
def test_bad_candidate_rows(small_dataset, value):
    split = small_dataset.split
    user = split.users["evaluation"][0]
    candidates = split.candidates.copy()
    truth_at = np.flatnonzero(candidates[user] == split.truth[user])[0]
    if value == "twice":
        candidates[user, (truth_at + 1) % 20] = split.truth[user]
    elif value == "absent":
        candidates[user, truth_at] = candidates[user, (truth_at + 1) % 20]
    else:
        candidates[user, truth_at] = 64
    with pytest.raises(UserError, match=f"user {user}"):
        audit(with_split(small_dataset, candidates=candidates))


def test_overlapping_groups(small_dataset):
    users = dict(small_dataset.split.users)
    users["grpo"] = np.append(users["grpo"], users["sft"][0])
    with pytest.raises(UserError, match=f"user {users['sft'][0]}: .*more than one group"):
        audit(with_split(small_dataset, users=users))


def test_members_without_candidates(small_dataset):
    users = dict(small_dataset.split.users) | {"sft": np.empty(0, np.int32)}
    with pytest.raises(UserError, match="candidates and groups"):
        audit(with_split(small_dataset, users=users))


def test_unsorted_log(small_dataset):
    log = small_dataset.interactions
    backwards = Interactions(
        log.user, log.item, log.rating, -log.time, n_users=log.n_users, n_items=log.n_items
    )
    with pytest.raises(UserError, match="sorted"):
        audit(dataclasses.replace(small_dataset, interactions=backwards))
