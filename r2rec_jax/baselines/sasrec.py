"""SASRec (Kang and McAuley 2018, arXiv 1808.09781): causal self-attention over a history."""

import flax.linen as nn
import jax


class SASRec(nn.Module):
    """Blocks of causal attention and a two-layer feed-forward, each with dropout and a residual.

    As in the paper layers see normalised inputs, positions are learnt, and an item has one embedding
    for what was rated and what comes next.
    """

    n_items: int
    width: int
    layers: int
    heads: int
    length: int
    dropout: float

    @nn.compact
    def __call__(self, user_N, items_NT, training: bool = False) -> jax.Array:
        """Hidden states float32 [N, T, D]; position t knows items 0..t. Users have no parameters here."""
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
            seen = nn.LayerNorm()(x_NTD)
            x_NTD = x_NTD + attention(seen, seen, mask=causal)
            inner = jax.nn.relu(nn.Dense(self.width)(nn.LayerNorm()(x_NTD)))
            inner = nn.Dropout(self.dropout, deterministic=not training)(inner)
            inner = nn.Dense(self.width)(inner)
            x_NTD = x_NTD + nn.Dropout(self.dropout, deterministic=not training)(inner)
        return nn.LayerNorm()(x_NTD)
