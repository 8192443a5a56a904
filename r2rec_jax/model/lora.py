"""Low-rank adapters by hand: y = x W + (alpha / r) (x A) B, after Hu et al. 2021.

A and B live in their own `lora` collection, so that what is differentiated, optimised and
checkpointed is a tree of a few megabytes, and the base is an argument that nothing copies.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """`rank` r of every adapter, `alpha` of its scale, and the layers (by HF name) that own one."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = LINEAR_LAYERS

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Linear(nn.Module):
    """A bias-free linear layer on flat rows, [rows, in] -> [rows, features], plus its adapter if it has one.

    Rows are flat on purpose: XLA's CPU gradient of a 3-D LoRA product misses the fast matmul.
    """

    features: int
    axes: tuple[str, str]
    lora: LoRAConfig | None = None

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        kernel_init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), self.axes)
        kernel = self.param("kernel", kernel_init, (width, self.features), jnp.float32)
        y = x @ kernel.astype(x.dtype)
        if self.lora is None or self.name not in self.lora.targets:
            return y

        def adapter(name, init, shape, axes):
            boxed = nn.with_logical_partitioning(init, axes)
            return self.variable("lora", name, lambda: boxed(self.make_rng("lora"), shape, jnp.float32)).value

        # B starts at zero, so a fresh adapter changes nothing.
        a = adapter("a", nn.initializers.he_uniform(), (width, self.lora.rank), (self.axes[0], "lora"))
        b = adapter("b", nn.initializers.zeros, (self.lora.rank, self.features), ("lora", self.axes[1]))
        return y + self.lora.scale * (x @ a.astype(x.dtype)) @ b.astype(x.dtype)
