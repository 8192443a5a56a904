"""Item tokens: item vectors of a trained recommender, projected into the model's input space.

As in LLaRA (Liao et al. 2024, arXiv 2312.02445). The token id of item i is V + i. Item tokens occur only in
the input, so neither the tokenizer nor the output head contains them.
"""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import gathered
from r2rec_jax.runtime.untrusted import open_array


class ItemTokens(nn.Module):
    """Maps item numbers int32 [N, T] to input vectors [N, T, features] of `dtype`.

    The collection `items` contains the frozen table, float32 of shape `items` (number, width). The collection
    `projector` contains two layers of the model's width with a GELU in between, as in LLaRA's code. Numbers
    out of range are clipped, and the caller must ignore their vectors.
    """

    items: tuple[int, int]
    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, items_NT):
        def leaf(collection, name, init, shape, axes):
            boxed = nn.with_logical_partitioning(init, axes)
            return self.variable(
                collection, name, lambda: boxed(self.make_rng("lora"), shape, jnp.float32)
            ).value

        (count, width), D = self.items, self.features
        zeros = nn.initializers.zeros
        # Initial item vectors have about the scale of fresh word embeddings. Larger ones would dominate the
        # residual stream.
        small = nn.initializers.variance_scaling(0.02**2, "fan_in", "truncated_normal")
        table = leaf("items", "table", zeros, (count, width), (None, None))
        w1 = leaf("projector", "w1", nn.initializers.lecun_normal(), (width, D), (None, "mlp"))
        b1 = leaf("projector", "b1", zeros, (D,), ("mlp",))
        w2 = gathered(leaf("projector", "w2", small, (D, D), ("mlp", "embed")), "mlp", "embed")
        b2 = gathered(leaf("projector", "b2", zeros, (D,), ("embed",)), "embed")
        x = jnp.take(table, jnp.clip(items_NT, 0, count - 1), axis=0).astype(self.dtype)
        hidden = jax.nn.gelu(x @ w1.astype(self.dtype) + b1.astype(self.dtype), approximate=False)
        return hidden @ w2.astype(self.dtype) + b2.astype(self.dtype)


def read_items(path: str | Path) -> np.ndarray:
    """Reads the table in an .npy file, float32 [items, width]. Raises UserError if missing or invalid."""
    try:
        table = np.array(open_array(path, np.float32, 2))
    except FileNotFoundError:
        raise UserError(
            f"no item vectors at {path}: set model.item_table to the items.npy of a trained SASRec"
        ) from None
    except ValueError as fault:
        raise _no_table(path, fault) from None
    if not table.size or not np.isfinite(table).all():
        raise _no_table(path, "empty, or with numbers that are not finite")
    return table


def _no_table(path: str | Path, why: object) -> UserError:
    return UserError(
        f"{path} is not an .npy table of finite float32 vectors, one per row ({why}): set model.item_table "
        "to that of a SASRec"
    )
