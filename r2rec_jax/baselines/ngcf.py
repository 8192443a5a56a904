"""NGCF (Wang et al. 2019, arXiv 1905.08108): graph convolutions with an interaction term."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from r2rec_jax.baselines.edges import Edges


class NGCF(nn.Module):
    """Layers of leaky_relu((self + neighbours) W1 + (neighbours * self) W2), whose outputs are concatenated.

    Messages are normalised symmetrically. Dropout is applied to a layer's output, which is then normalised to
    length 1.
    """

    width: int
    layers: int
    dropout: float

    @nn.compact
    def __call__(self, edges: Edges, training: bool = False) -> tuple[jax.Array, jax.Array]:
        """(users float32 [U, D * (layers + 1)], items float32 [I, D * (layers + 1)])."""
        init = nn.initializers.glorot_uniform()
        user = self.param("user_embedding", init, (edges.n_users, self.width))
        item = self.param("item_embedding", init, (edges.n_items, self.width))
        users, items = [user], [item]
        for _ in range(self.layers):
            total, product = nn.Dense(self.width), nn.Dense(self.width)
            drop = nn.Dropout(self.dropout, deterministic=not training)

            def convolve(own, near, total=total, product=product, drop=drop):
                return drop(nn.leaky_relu(total(own + near) + product(near * own), 0.2))

            near_user, near_item = edges.to_users(item, edges.weight), edges.to_items(user, edges.weight)
            user, item = convolve(user, near_user), convolve(item, near_item)
            users.append(_unit(user))
            items.append(_unit(item))
        return jnp.concatenate(users, axis=-1), jnp.concatenate(items, axis=-1)


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)
