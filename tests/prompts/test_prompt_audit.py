"""The audit of what prompts show: a leak planted in the graph is found whichever chains are shown."""

import dataclasses

import numpy as np
import pytest

from configs import data as data_config
from r2rec_jax.chains.chain import Chain
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.prompts.prompt_audit import audit_prompts
from r2rec_jax.runtime.errors import UserError

# (chain_selection, chain_length)
POLICIES = [
    *(("uniform", 1), ("uniform", 2), ("uniform", 3)),
    *(("similar", 1), ("candidate_aware", 1), ("candidate_aware", 2), ("recent", 1)),
]


def settings(selection: str, length: int, **changes):
    config = data_config.get_config("generated")
    config.prompt.update({"chain_selection": selection, "chain_length": length, "chains": 5} | changes)
    return config


def of(config) -> dict:
    """What the audit reads of a config."""
    before = config.data.before_target_time
    return {"config": config.prompt, "seed": config.seed, "before_target_time": before}


@pytest.mark.parametrize("selection, length", POLICIES)
def test_a_leak_planted_for_companions_is_found(dataset, selection, length):
    """Companions show everything they rated, the user nothing but the history."""
    config, cutoff = settings(selection, length), dataset.split.cutoff
    checked, alone = audit_prompts(dataset, build_graph(dataset), **of(config))
    assert checked > 100 and alone < 10
    for user in dataset.split.users["evaluation"][:5].tolist():
        ends = dataset.interactions.offsets[1:].copy()
        ends[user] = cutoff[user]
        leaky = build_graph(
            dataclasses.replace(dataset, split=dataclasses.replace(dataset.split, cutoff=ends))
        )
        only = dataclasses.replace(dataset.split, users={"evaluation": np.array([user], np.int32)})
        one = dataclasses.replace(dataset, split=only)
        leaks = 0
        for seed in range(10):
            config.seed = seed
            try:
                audit_prompts(one, leaky, **of(config))
            except UserError as error:
                assert "at or after the cutoff" in str(error) or "contains the candidate" in str(error)
                leaks += 1
        assert leaks, user


@pytest.mark.parametrize("selection, length", POLICIES)
def test_the_last_companion_of_a_chain_is_audited_too(dataset, graph, monkeypatch, selection, length):
    """A wrong rating on any one edge of the chains is found."""
    config = settings(selection, length, chains=1)
    edges = Chain.edges.fget
    for k in range(2 * length + 2):

        def wrong(chain, k=k):
            found = edges(chain)
            who, item, rating = found[k]
            found[k] = who, item, rating + 1
            return found

        monkeypatch.setattr(Chain, "edges", property(wrong))
        with pytest.raises(UserError, match="that is not in the log"):
            audit_prompts(dataset, graph, **of(config))
        monkeypatch.undo()


def test_without_chains_the_likes_and_the_history_are_audited(dataset, graph):
    config = settings("uniform", 1, chains=0, likes=3, history=4)
    assert audit_prompts(dataset, graph, **of(config))[0] == 0
    groups = dataset.split.users
    user = int(groups["evaluation"][0])
    late = dataset.split.cutoff.copy()
    late[user] = dataset.interactions.offsets[user + 1]  # a split whose history has no end

    class Late(type(dataset)):
        def history(self, one):
            return slice(int(self.interactions.offsets[one]), int(late[one]))

    leaky = Late(dataset.name, dataset.interactions, dataset.catalog, dataset.split)
    with pytest.raises(UserError, match=f"the cutoff of user {user}"):
        audit_prompts(leaky, graph, **of(config))
