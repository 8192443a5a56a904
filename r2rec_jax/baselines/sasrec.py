"""SASRec (Kang and McAuley 2018, arXiv 1808.09781): causal self-attention over a history."""

import flax.linen as nn
import jax


class SASRec(nn.Module):
    """Blocks of causal attention and a two-layer feed-forward network, each with dropout and a residual.

    As in the paper, the inputs of layers are normalised, positions are learned, and input and output share
    the item embeddings.
    """

    n_items: int
    width: int
    layers: int
    heads: int
    length: int
    dropout: float

    @nn.compact
    def __call__(self, user_N, items_NT, training: bool = False) -> jax.Array:
        """Hidden states float32 [N, T, D]. Position t depends on items 0..t. `user_N` is unused."""
        del user_N
        init = nn.initializers.normal(0.02)
        table = self.param("item_embedding", init, (self.n_items, self.width))
        positions = self.param("position_embedding", init, (self.length, self.width))
        T = items_NT.shape[1]
        x_NTD = table[items_NT] * self.width**0.5 + positions[:T]
        x_NTD = nn.Dropout(self.dropout, deterministic=not training)(x_NTD)
        causal = nn.make_causal_mask(items_NT)
        for _ in range(self.layers):
            attention = nn.MultiHeadDotProductAttention(
                self.heads, dropout_rate=self.dropout, deterministic=not training
            )
            normed = nn.LayerNorm()(x_NTD)
            x_NTD = x_NTD + attention(normed, normed, mask=causal)
            inner = jax.nn.relu(nn.Dense(self.width)(nn.LayerNorm()(x_NTD)))
            inner = nn.Dropout(self.dropout, deterministic=not training)(inner)
            inner = nn.Dense(self.width)(inner)
            x_NTD = x_NTD + nn.Dropout(self.dropout, deterministic=not training)(inner)
        return nn.LayerNorm()(x_NTD)
