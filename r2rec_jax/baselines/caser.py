"""Caser (Tang and Wang 2018): convolutions over the embeddings of the last items, treated as an image."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Caser(nn.Module):
    """Horizontal filters of every height over the last `window` items, max-pooled, and vertical filters.

    The filter outputs are concatenated with the user's embedding. The product with separate output embeddings
    gives the scores. Positions before the first item are zero vectors.
    """

    n_users: int
    n_items: int
    width: int
    dropout: float
    window: int = 5
    horizontal: int = 16
    vertical: int = 4

    @nn.compact
    def __call__(self, user_N, items_NT, training: bool = False) -> jax.Array:
        """Hidden states float32 [N, T, 2D]. Position t depends on items t - window + 1 .. t and the user."""
        init = nn.initializers.normal(0.02)
        inputs = self.param("input_embedding", init, (self.n_items, self.width))
        users = self.param("user_embedding", init, (self.n_users, self.width))
        self.param("item_embedding", init, (self.n_items, 2 * self.width))
        N, T = items_NT.shape
        x_NTD = jnp.pad(inputs[items_NT] * self.width**0.5, ((0, 0), (self.window - 1, 0), (0, 0)))
        outputs = []
        for height in range(1, self.window + 1):
            seen = jax.nn.relu(nn.Conv(self.horizontal, (height,), padding="VALID")(x_NTD))
            places = self.window - height + 1
            outputs.append(jnp.max(jnp.stack([seen[:, k : k + T] for k in range(places)]), axis=0))
        mix = self.param("vertical", nn.initializers.lecun_normal(), (self.window, self.vertical))
        windows = jnp.stack([x_NTD[:, k : k + T] for k in range(self.window)], axis=-1)
        outputs.append((windows @ mix).reshape(N, T, -1))
        joined = jnp.concatenate(outputs, axis=-1)
        joined = nn.Dropout(self.dropout, deterministic=not training)(joined)
        taste = jax.nn.relu(nn.Dense(self.width)(joined))
        user = jnp.broadcast_to(users[user_N][:, None] * self.width**0.5, taste.shape)
        return jnp.concatenate([taste, user], axis=-1)
