"""Training loss and scoring of the models that predict the next item of a history."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.baselines.caser import Caser
from r2rec_jax.baselines.config import LOSSES, SequenceConfig
from r2rec_jax.baselines.gru4rec import GRU4Rec
from r2rec_jax.baselines.observed import candidates_of
from r2rec_jax.baselines.sasrec import SASRec
from r2rec_jax.baselines.sequences import NextItemBatches, recent_items
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError

_USERS_AT_ONCE = 512


class NextItem:
    """A Flax module (`make_module`) with its batches and loss, for `trainer.fit_score`.

    The module returns hidden states of every position. An item's score is their product with the item's row
    of the module's parameter `item_embedding`.
    """

    def __init__(self, dataset: Dataset, config: SequenceConfig, seed: int):
        """`seed` draws the batches. Raises UserError for an unknown loss."""
        if config.loss not in LOSSES:
            raise UserError(f"baselines: loss {config.loss!r} is unknown; use one of {', '.join(LOSSES)}")
        self.dataset, self.config = dataset, config
        self.module = make_module(dataset, config)
        size = config.train.batch_size
        self.batches = NextItemBatches(dataset, length=config.length, batch_size=size, seed=seed)
        self.frozen = {}
        self._last = jax.jit(self._last_hidden)

    def init(self, key: jax.Array) -> dict:
        ones = jnp.zeros((1,), jnp.int32), jnp.zeros((1, self.config.length), jnp.int32)
        return self.module.init(key, *ones)["params"]

    def loss(self, params: dict, frozen: dict, batch: dict, key: jax.Array) -> jax.Array:
        """Mean loss of the targets.

        softmax: cross-entropy over the whole catalogue. bce: binary cross-entropy of the target and of one
        uniformly drawn item, as in the SASRec paper.
        """
        del frozen
        draw, drop = jax.random.split(key)
        hidden = self.module.apply(
            {"params": params}, batch["user"], batch["items"], training=True, rngs={"dropout": drop}
        )
        hidden_MD = hidden.reshape(-1, hidden.shape[-1])
        target_M, mask_M = batch["target"].reshape(-1), batch["mask"].reshape(-1)
        table = params["item_embedding"]
        positive_M = jnp.sum(hidden_MD * table[target_M], axis=-1)
        if self.config.loss == "softmax":
            loss_M = jax.nn.logsumexp(hidden_MD @ table.T, axis=-1) - positive_M
        else:
            negative_M = jnp.sum(
                hidden_MD * table[jax.random.randint(draw, target_M.shape, 0, len(table))], axis=-1
            )
            loss_M = jax.nn.softplus(-positive_M) + jax.nn.softplus(negative_M)
        return jnp.sum(loss_M * mask_M) / jnp.maximum(jnp.sum(mask_M), 1)

    def scores(self, params: dict, users: np.ndarray) -> np.ndarray:
        """Scores of the users' candidates, float64[len(users), C]."""
        candidates = candidates_of(self.dataset, users)
        out, table = np.empty(candidates.shape), np.asarray(params["item_embedding"])
        for start in range(0, len(users), _USERS_AT_ONCE):
            # The last block repeats its first user, so that all blocks have the same shape.
            block = np.arange(start, start + _USERS_AT_ONCE)
            block = np.where(block < len(users), block, start)
            items, length = recent_items(self.dataset, users[block], self.config.length)
            hidden = np.asarray(self._last(params, users[block], items, length))
            size = min(_USERS_AT_ONCE, len(users) - start)
            rows = slice(start, start + size)
            out[rows] = np.einsum("nd,ncd->nc", hidden[:size], table[candidates[rows]])
        return out

    def _last_hidden(self, params, user_N, items_NT, length_N):
        hidden = self.module.apply({"params": params}, user_N, items_NT)
        return jnp.take_along_axis(hidden, jnp.maximum(length_N - 1, 0)[:, None, None], axis=1)[:, 0]


def make_module(dataset: Dataset, c: SequenceConfig) -> nn.Module:
    """Makes the module `c.module` with sizes from the config section `c`."""
    log = dataset.interactions
    match c.module:
        case "sasrec":
            return SASRec(log.n_items, c.width, c.layers, c.heads, c.length, c.dropout)
        case "gru4rec":
            return GRU4Rec(log.n_items, c.width, c.hidden, c.dropout)
        case "caser":
            return Caser(log.n_users, log.n_items, c.width, c.dropout)
    raise UserError(f"baselines: module {c.module!r} is unknown; use sasrec, gru4rec or caser")
