"""LightGCN (He et al. 2020, arXiv 2002.02126): linear propagation of embeddings along the graph."""

import flax.linen as nn
import jax

from r2rec_jax.baselines.edges import Edges


class LightGCN(nn.Module):
    """The mean of the embeddings and of their results after 1..`layers` normalised propagations."""

    width: int
    layers: int

    @nn.compact
    def __call__(self, edges: Edges, training: bool = False) -> tuple[jax.Array, jax.Array]:
        """(users float32 [U, D], items float32 [I, D])."""
        del training
        init = nn.initializers.normal(0.1)
        user = self.param("user_embedding", init, (edges.n_users, self.width))
        item = self.param("item_embedding", init, (edges.n_items, self.width))
        users, items = user, item
        for _ in range(self.layers):
            user, item = edges.to_users(item, edges.weight), edges.to_items(user, edges.weight)
            users, items = users + user, items + item
        return users / (self.layers + 1), items / (self.layers + 1)
