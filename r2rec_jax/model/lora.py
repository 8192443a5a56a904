"""Hand-written low-rank adapters: y = x W + s (dropout(x) A) B, after Hu et al. 2021.

A and B are in their own collection `lora`. The differentiated, optimized and checkpointed tree is therefore a
few megabytes, and the base is never copied. A and B are always float32, because bfloat16 would round small
updates away.
"""

from collections.abc import Iterable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.runtime.mesh import gathered


class Linear(nn.Module):
    """A linear layer without bias on flat rows, [rows, in] -> [rows, features], with an optional adapter.

    `int8`: whether the kernel is int8 with a float32 `scale` [features], see quantize.py.
    Rows are flat because XLA on CPU does not use its fast matmul for the gradient of a 3-D LoRA product.
    """

    features: int
    axes: tuple[str, str]
    lora: LoRAConfig | None = None
    int8: bool = False

    @nn.compact
    def __call__(self, x):
        y = self._base(x)
        if self.lora is None or self.name not in self.lora.targets:
            return y

        def adapter(name, init, shape, axes):
            boxed = nn.with_logical_partitioning(init, axes)
            return self.variable("lora", name, lambda: boxed(self.make_rng("lora"), shape, jnp.float32)).value

        # B is initialized to zero, so a fresh adapter does not change the output.
        rank, width = self.lora.rank, x.shape[-1]
        a = adapter("a", nn.initializers.he_uniform(), (width, rank), (self.axes[0], "lora"))
        b = adapter("b", nn.initializers.zeros, (rank, self.features), ("lora", self.axes[1]))
        a, b = gathered(a, self.axes[0], "lora"), gathered(b, "lora", self.axes[1])
        x = nn.Dropout(self.lora.dropout, deterministic=not self.has_rng("dropout"))(x)
        return y + self.lora.scale * (x @ a.astype(x.dtype)) @ b.astype(x.dtype)

    def _base(self, x):
        shape = (x.shape[-1], self.features)
        if not self.int8:
            init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), self.axes)
            kernel = self.param("kernel", init, shape, jnp.float32)
            return x @ gathered(kernel, *self.axes).astype(x.dtype)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes)
        ones = nn.with_logical_partitioning(nn.initializers.ones, self.axes[1:])
        kernel = gathered(self.param("kernel", zeros, shape, jnp.int8), *self.axes)
        scale = gathered(self.param("scale", ones, (self.features,), jnp.float32), *self.axes[1:])
        # The product is scaled, so the kernel stays int8 in memory. -127..127 are exact in bfloat16.
        return ((x @ kernel.astype(x.dtype)) * scale).astype(x.dtype)


def merge(
    leaves: Iterable[tuple[tuple[str, ...], jax.Array]], lora: dict, config: LoRAConfig
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Merges an adapter: yields (path, array) of the parameters with every adapted W replaced by W + s A B.

    `lora` is unboxed. Each layer's sum is computed in float32 and rounded to W's dtype.
    """
    adapters = traverse_util.flatten_dict(jax.device_get(lora))
    for path, leaf in leaves:
        kernel = np.asarray(leaf)
        if (*path[:-1], "a") in adapters:
            a_LDr, b_LrF = (adapters[*path[:-1], side] for side in "ab")
            base, kernel = kernel, np.empty_like(kernel)
            for layer, weight in enumerate(base):
                change = np.float32(config.scale) * (a_LDr[layer] @ b_LrF[layer])
                kernel[layer] = (weight.astype(np.float32) + change).astype(base.dtype)
        yield path, kernel
