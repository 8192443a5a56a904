"""Training loss and scoring of the models that propagate embeddings along the user-item graph."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.baselines.config import GraphConfig
from r2rec_jax.baselines.edges import PairBatches, edges
from r2rec_jax.baselines.graphsage import GraphSAGE
from r2rec_jax.baselines.lightgcn import LightGCN
from r2rec_jax.baselines.ngcf import NGCF
from r2rec_jax.baselines.observed import candidates_of
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError


class Propagation:
    """A Flax module (`make_module`) with its training pairs and loss, for `trainer.fit_score`.

    The module returns embeddings of all users and items. A score is the product of a user's and an item's.
    """

    def __init__(self, dataset: Dataset, config: GraphConfig, seed: int):
        """`seed` draws the batches."""
        self.dataset, self.config = dataset, config
        self.module = make_module(config)
        self.frozen = edges(dataset, liked=config.liked)
        self.batches = PairBatches(self.frozen, batch_size=config.train.batch_size, seed=seed)
        self._embed = jax.jit(lambda params, edges: self.module.apply({"params": params}, edges))

    def init(self, key: jax.Array) -> dict:
        return self.module.init(key, self.frozen)["params"]

    def loss(self, params: dict, frozen, batch: dict, key: jax.Array) -> jax.Array:
        """Bayesian personalised ranking loss (Rendle et al. 2009) with L2 regularisation.

        The L2 term is `config.l2` / 2 times the squared embeddings of the user, the positive and the
        negative, as in the authors' code of NGCF and LightGCN.
        """
        users, items = self.module.apply({"params": params}, frozen, training=True, rngs={"dropout": key})
        user, positive, negative = batch["user"], batch["positive"], batch["negative"]
        gap_N = jnp.sum(users[user] * (items[positive] - items[negative]), axis=-1)
        own, table = params["user_embedding"], params["item_embedding"]
        squares = sum(jnp.sum(jnp.square(x)) for x in (own[user], table[positive], table[negative]))
        return jnp.mean(jax.nn.softplus(-gap_N)) + self.config.l2 * squares / (2 * len(user))

    def scores(self, params: dict, users: np.ndarray) -> np.ndarray:
        """Scores of the users' candidates, float64[len(users), C]."""
        candidates = candidates_of(self.dataset, users)
        user_UD, item_ID = (np.asarray(x, np.float64) for x in self._embed(params, self.frozen))
        return np.einsum("nd,ncd->nc", user_UD[users], item_ID[candidates])


def make_module(c: GraphConfig) -> nn.Module:
    """Makes the module `c.module` with sizes from the config section `c`."""
    match c.module:
        case "graphsage":
            return GraphSAGE(c.width, c.layers, c.dropout)
        case "ngcf":
            return NGCF(c.width, c.layers, c.dropout)
        case "lightgcn":
            return LightGCN(c.width, c.layers)
    raise UserError(f"baselines: module {c.module!r} is unknown; use graphsage, ngcf or lightgcn")
