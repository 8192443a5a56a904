import dataclasses

import numpy as np
import pytest

from r2rec_jax.data.interactions import Interactions
from r2rec_jax.data.split_audit import audit, audit_chains
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
    with pytest.raises(UserError, match=f"user {user}: the held-out item"):
        audit(with_split(small_dataset, truth=truth))


def test_candidate_from_the_history(small_dataset):
    split = small_dataset.split
    user = split.users["evaluation"][3]
    candidates = np.array(split.candidates)
    place = np.flatnonzero(candidates[user] != split.truth[user])[0]
    rows = small_dataset.history(user)
    candidates[user, place] = small_dataset.interactions.item[rows][0]
    with pytest.raises(UserError, match=f"negative of user {user}"):
        audit(with_split(small_dataset, candidates=candidates))


@pytest.mark.parametrize("value", ["twice", "absent", "outside"])
def test_bad_candidate_rows(small_dataset, value):
    split = small_dataset.split
    user = split.users["evaluation"][0]
    candidates = np.array(split.candidates)
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


def edges_of(dataset, user):
    """The first two rows of the history, as edges of `user` itself."""
    log, rows = dataset.interactions, dataset.history(user)
    return [(user, int(log.item[row]), float(log.rating[row])) for row in range(rows.start, rows.start + 2)]


def test_edges_of_the_history_may_be_shown(small_dataset):
    user = int(small_dataset.split.users["sft"][0])
    audit_chains(small_dataset, user, edges_of(small_dataset, user), before_target_time=True)


def test_the_truth_in_a_chain(small_dataset):
    log, split = small_dataset.interactions, small_dataset.split
    user = int(split.users["sft"][0])
    row = int(split.cutoff[user])
    with pytest.raises(UserError, match="at or after the cutoff"):
        audit_chains(small_dataset, user, [(user, int(log.item[row]), float(log.rating[row]))])


def test_another_users_truth_in_a_chain(small_dataset):
    log, split = small_dataset.interactions, small_dataset.split
    user, other = split.users["sft"][:2].tolist()
    row = int(split.cutoff[other])
    with pytest.raises(UserError, match=f"the cutoff of user {other}"):
        audit_chains(small_dataset, user, [(other, int(log.item[row]), float(log.rating[row]))])


def test_a_candidate_in_a_chain(small_dataset):
    log, split = small_dataset.interactions, small_dataset.split
    user = int(split.users["sft"][0])
    shown = set(split.candidates[user].tolist())
    row = next(row for row in range(len(log)) if log.item[row] in shown and row < split.cutoff[log.user[row]])
    with pytest.raises(UserError, match="contains the candidate"):
        audit_chains(small_dataset, user, [(int(log.user[row]), int(log.item[row]), float(log.rating[row]))])


def test_an_edge_that_is_not_in_the_log(small_dataset):
    log = small_dataset.interactions
    user = int(small_dataset.split.users["sft"][0])
    (_, item, rating), _ = edges_of(small_dataset, user)
    stranger = next(i for i in range(64) if i not in log.item[log.user == user])
    for edge in ((user, item, rating + 1), (user, stranger, rating)):
        with pytest.raises(UserError, match="not in the log"):
            audit_chains(small_dataset, user, [edge])


def test_time_of_the_truth_bounds_others_only_when_asked(small_dataset):
    log, split = small_dataset.interactions, small_dataset.split
    user = min(split.users["sft"].tolist(), key=small_dataset.truth_time)
    shown = set(split.candidates[user].tolist())
    later = log.time >= small_dataset.truth_time(user)
    row = next(
        row
        for row in np.flatnonzero(later & (log.user != user)).tolist()
        if row < split.cutoff[log.user[row]] and log.item[row] not in shown
    )
    edge = (int(log.user[row]), int(log.item[row]), float(log.rating[row]))
    audit_chains(small_dataset, user, [edge])
    with pytest.raises(UserError, match="after the time of the held-out item"):
        audit_chains(small_dataset, user, [edge], before_target_time=True)


def test_demographics_that_name_the_truth(small_dataset):
    user = int(small_dataset.split.users["grpo"][0])
    people = list(small_dataset.catalog.demographics)
    title = small_dataset.catalog.title[small_dataset.split.truth[user]]
    people[user] = people[user] | {"last bought": title.upper()}
    catalog = dataclasses.replace(small_dataset.catalog, demographics=people)
    with pytest.raises(UserError, match=f"demographics of user {user}"):
        audit(dataclasses.replace(small_dataset, catalog=catalog))


def test_a_truth_that_is_not_liked(small_dataset):
    with pytest.raises(UserError, match="not a liked item"):
        audit(with_split(small_dataset, like_above=5.0))
