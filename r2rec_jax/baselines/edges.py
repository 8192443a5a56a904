"""The user-item graph and its training pairs, for the models that propagate embeddings along it."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError


@flax.struct.dataclass
class Edges:
    """The E edges (ratings before the cutoffs) of the user-item graph, sorted by user.

    user, item: int32 [E]. weight: float32 [E], 1 / sqrt(degree of the user * degree of the item).
    """

    user: jax.Array
    item: jax.Array
    weight: jax.Array
    n_users: int = flax.struct.field(pytree_node=False)
    n_items: int = flax.struct.field(pytree_node=False)

    def to_users(self, item_ID: jax.Array, weight_E: jax.Array) -> jax.Array:
        """Sums over each user's items: float32 [U, D]."""
        moved = item_ID[self.item] * weight_E[:, None]
        return jax.ops.segment_sum(moved, self.user, self.n_users, indices_are_sorted=True)

    def to_items(self, user_UD: jax.Array, weight_E: jax.Array) -> jax.Array:
        """Sums over each item's users: float32 [I, D]."""
        return jax.ops.segment_sum(user_UD[self.user] * weight_E[:, None], self.item, self.n_items)


def edges(dataset: Dataset, *, liked: bool) -> Edges:
    """The edges of all ratings before the cutoffs, or only of likes if `liked`.

    Raises UserError if there are none.
    """
    log, seen = dataset.interactions, seen_rows(dataset, liked=liked)
    user, item = np.asarray(log.user)[seen], np.asarray(log.item)[seen]
    of_user = np.bincount(user, minlength=log.n_users)
    of_item = np.bincount(item, minlength=log.n_items)
    weight = 1 / np.sqrt(of_user[user].astype(np.float64) * of_item[item])
    arrays = jnp.asarray(user), jnp.asarray(item), jnp.asarray(weight, jnp.float32)
    return Edges(*arrays, n_users=log.n_users, n_items=log.n_items)


def seen_rows(dataset: Dataset, *, liked: bool) -> np.ndarray:
    """Marks the log's rows before the cutoffs, or only the likes among them if `liked`: bool [N].

    Raises UserError if there are none.
    """
    log, split = dataset.interactions, dataset.split
    seen = np.arange(len(log.item)) < np.asarray(split.cutoff)[log.user]
    if liked:
        seen &= np.asarray(log.rating) > split.like_above
    if not seen.any():
        raise UserError("baselines: there are no ratings before the cutoffs; use more data")
    return seen


class PairBatches:
    """Batch k of training pairs: {'user' [N], 'positive' [N], 'negative' [N]}, int32.

    An epoch uses each edge once. A negative is drawn uniformly from the items without an edge to the user.
    Batch k depends on (seed, k) only.
    """

    def __init__(self, graph: Edges, *, batch_size: int, seed: int):
        self.user, self.item = np.asarray(graph.user), np.asarray(graph.item)
        self.n_items, self.seed = graph.n_items, seed
        self.batch_size = min(batch_size, len(self.user))
        self.edge_keys = np.sort(self._key(self.user, self.item))
        if np.bincount(self.user).max() >= self.n_items:
            raise UserError("baselines: a user has rated every item, so there are no negatives to draw")
        self.per_epoch = len(self.user) // self.batch_size
        self._cached: tuple[int, np.ndarray | None] = (-1, None)

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        epoch, place = divmod(int(k), self.per_epoch)
        cached, order = self._cached
        if cached != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.user))
            self._cached = epoch, order
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        user = self.user[chosen]
        rng = np.random.default_rng([self.seed, 1, int(k)])
        negative = rng.integers(self.n_items, size=len(user))
        while (clash := self._is_edge(user, negative)).any():
            negative[clash] = rng.integers(self.n_items, size=clash.sum())
        return {"user": user, "positive": self.item[chosen], "negative": negative.astype(np.int32)}

    def _key(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        return user.astype(np.int64) * self.n_items + item

    def _is_edge(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        key = self._key(user, item)
        place = np.searchsorted(self.edge_keys, key)
        return self.edge_keys[np.minimum(place, len(self.edge_keys) - 1)] == key
