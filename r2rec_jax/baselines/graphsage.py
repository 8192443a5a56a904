"""GraphSAGE (Hamilton et al. 2017, arXiv 1706.02216) with mean aggregation, on the user-item graph."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from r2rec_jax.baselines.edges import Edges


class GraphSAGE(nn.Module):
    """Layers of relu(W [self, mean of neighbours]), the last one without relu.

    All neighbours are used instead of a sample, since the whole graph fits in memory. Node features are
    learned embeddings. Users and items have separate weights.
    """

    width: int
    layers: int
    dropout: float

    @nn.compact
    def __call__(self, edges: Edges, training: bool = False) -> tuple[jax.Array, jax.Array]:
        """(users float32 [U, D], items float32 [I, D])."""
        init = nn.initializers.normal(0.1)
        user = self.param("user_embedding", init, (edges.n_users, self.width))
        item = self.param("item_embedding", init, (edges.n_items, self.width))
        ones = jnp.ones_like(edges.weight)
        of_user = jnp.maximum(jax.ops.segment_sum(ones, edges.user, edges.n_users), 1)[:, None]
        of_item = jnp.maximum(jax.ops.segment_sum(ones, edges.item, edges.n_items), 1)[:, None]
        for layer in range(self.layers):
            near_user = edges.to_users(item, ones) / of_user
            near_item = edges.to_items(user, ones) / of_item
            joined = [jnp.concatenate(pair, axis=-1) for pair in ((user, near_user), (item, near_item))]
            joined = [nn.Dropout(self.dropout, deterministic=not training)(x) for x in joined]
            user, item = (nn.Dense(self.width)(x) for x in joined)
            if layer + 1 < self.layers:
                user, item = jax.nn.relu(user), jax.nn.relu(item)
        return user, item
