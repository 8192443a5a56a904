"""GRU4Rec (Hidasi et al. 2016, arXiv 1511.06939): a recurrent network over a history."""

import flax.linen as nn
import jax


class GRU4Rec(nn.Module):
    """One layer of gated recurrent units. The input item embeddings are also the output embeddings."""

    n_items: int
    width: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, user_N, items_NT, training: bool = False) -> jax.Array:
        """Hidden states float32 [N, T, D]. Position t depends on items 0..t. `user_N` is unused."""
        del user_N
        table = self.param("item_embedding", nn.initializers.normal(0.02), (self.n_items, self.width))
        x_NTD = nn.Dropout(self.dropout, deterministic=not training)(table[items_NT] * self.width**0.5)
        x_NTH = nn.RNN(nn.GRUCell(self.hidden))(x_NTD)
        x_NTH = nn.Dropout(self.dropout, deterministic=not training)(x_NTH)
        return nn.Dense(self.width)(x_NTH)
