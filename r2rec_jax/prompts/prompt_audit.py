"""Audits all prompts for ratings at or after a held-out item, before training."""

import numpy as np
from absl import logging
from tqdm import tqdm

from r2rec_jax.chains.graph import Graph
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.split_audit import Edge, audit_chains
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import draw_chains, recent_ratings


def audit_prompts(
    dataset: Dataset, graph: Graph, config: PromptConfig, *, seed: int, before_target_time: bool
) -> tuple[int, int]:
    """Looks up every rating in the prompts of all users of all groups in the log.

    Chains are drawn with `seed` and with selection, length and number from `config`. All their edges are
    checked.

    Returns:
      The number of audited chains, and the number of users without chains.

    Raises:
      UserError: the first rating that must not be in a prompt, with its user.
    """
    checked = alone = 0
    users = np.concatenate(list(dataset.split.users.values())).tolist()
    logging.info("auditing the prompts of %d users", len(users))
    for user in tqdm(users, desc="audit", mininterval=1, delay=5):
        chains = draw_chains(
            dataset,
            graph,
            user,
            chains=config.chains,
            seed=seed,
            length=config.chain_length,
            selection=config.chain_selection,
            before_target_time=before_target_time,
        )
        for edges in (_own(dataset, user, config), *(chain.edges for chain in chains)):
            audit_chains(dataset, user, edges, before_target_time=before_target_time)
        checked += len(chains)
        alone += not chains
    return checked, alone


def _own(dataset: Dataset, user: int, c: PromptConfig) -> list[Edge]:
    """The edges of the likes and the history in the user's prompt."""
    rated = dict(recent_ratings(dataset, user, len(dataset.interactions.item[dataset.history(user)])))
    shown = [*dataset.recent_likes(user, c.likes).tolist(), *list(rated)[max(0, len(rated) - c.history) :]]
    return [(user, item, rated[item]) for item in shown]
