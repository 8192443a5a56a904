"""FLOPs and MFU in closed form, and the roofline: the time that no run can beat (Williams et al. 2009).

A multiply-add counts as two FLOPs. Recomputation is not counted, nor are adapters, norms and softmax.
"""

import dataclasses

import jax
from absl import logging
from jax.sharding import Mesh

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.runtime.devices import Device, data_sheet
from r2rec_jax.runtime.measured_peaks import matmul_flops

QUICK_S = 0.005  # a product that long is near enough to the peak, and the start of a run does not notice it


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Of a step, over all devices: B prompts of P tokens, G completions each, of R tokens, taken in `parts`
    micro-batches. The largest buckets: what must fit."""

    B: int
    G: int
    P: int
    R: int
    parts: int = 1

    @property
    def N(self) -> int:
        return self.B * self.G


def layer_parameters(config: LlamaConfig) -> int:
    """Numbers in the seven matrices of all layers."""
    c = config
    attention = c.hidden_size * c.head_dim * (2 * c.num_attention_heads + 2 * c.num_key_value_heads)
    return c.num_hidden_layers * (attention + 3 * c.hidden_size * c.intermediate_size)


def attention_flops(config: LlamaConfig, shapes: Shapes) -> int:
    """Of one forward pass: causal among own tokens, 2 L H A T each; completions see their whole prompt."""
    width = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    prompts = shapes.B * shapes.P * 2 * width * shapes.P
    rows = shapes.N * shapes.R * (2 * width * shapes.R + 4 * width * shapes.P)
    return rows + (prompts if shapes.P > 1 else 0)


def tokens(shapes: Shapes) -> int:
    """That a pass computes: a prompt once for its group."""
    return shapes.N * shapes.R + (shapes.B * shapes.P if shapes.P > 1 else 0)


def forward_flops(config: LlamaConfig, shapes: Shapes) -> int:
    """2N a token and attention; the head for completions only."""
    head = shapes.N * shapes.R * config.hidden_size * config.vocab_size
    return 2 * (tokens(shapes) * layer_parameters(config) + head) + attention_flops(config, shapes)


def update_flops(config: LlamaConfig, shapes: Shapes, *, frozen: bool, reference: bool) -> int:
    """Forward and backward: 4N a token over a frozen base, whose weights need no gradient, else 6N, and
    three times the attention; one more forward pass for a reference."""
    forward, attention = forward_flops(config, shapes), attention_flops(config, shapes)
    passes = 2 if frozen else 3
    return passes * (forward - attention) + 3 * attention + (forward if reference else 0)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each resource needs by itself; the program cannot be faster than `seconds`."""

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """Compute and memory traffic overlap; collectives are taken not to."""
        return max(self.compute, self.memory) + self.links

    @property
    def bound(self) -> str:
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))


def roofline(device: Device, *, flops: float, traffic: float, wire: float) -> Roofline:
    """Of one device's FLOPs, bytes of device memory and bytes sent."""
    return Roofline(flops / device.flops, traffic / device.bandwidth, wire / device.link)


def peak_flops(dtype: str) -> float:
    """FLOPs a second of one device: the data sheet's where it is known and `dtype` is bfloat16, else those of
    a matrix product measured now."""
    kind = jax.local_devices()[0].device_kind
    sheet = data_sheet(kind) if dtype == "bfloat16" else None
    peak = sheet.flops if sheet else matmul_flops(dtype, QUICK_S)
    source = "its data sheet" if sheet else f"a product of {dtype} measured here"
    logging.info("MFU is of %.4g TFLOP/s, by %s (%s)", peak / 1e12, source, kind)
    return peak


class Mfu:
    """Model FLOPs utilisation: FLOPs of updates over those that all devices can do at peak in that time.

    FLOPs are `update_flops`: 4N a token over frozen weights, else 6N, and attention. Padding is counted,
    recomputation is not.
    """

    def __init__(self, model: LlamaConfig, mesh: Mesh, *, dtype: str, frozen: bool, reference: bool):
        self._model, self._frozen, self._reference = model, frozen, reference
        self._peak = peak_flops(dtype) * mesh.size

    def seconds_at_peak(self, batch: CompletionBatch) -> float:
        """Seconds that the update of a batch takes at MFU 1."""
        (B, P), (N, R) = batch.prompt.shape, batch.response.shape
        shapes = Shapes(B, N // B, P, R)
        return update_flops(self._model, shapes, frozen=self._frozen, reference=self._reference) / self._peak
