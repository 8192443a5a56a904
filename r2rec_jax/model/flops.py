"""FLOPs and MFU in closed form, and the roofline, a lower bound of the time (Williams et al. 2009).

A multiply-add counts as two FLOPs. Recomputation, adapters, norms and softmax are not counted.
"""

import dataclasses

import jax
from absl import logging
from jax.sharding import Mesh

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.runtime.devices import Device, data_sheet
from r2rec_jax.runtime.measured_peaks import matmul_flops

QUICK_S = (
    0.005  # seconds of the measured product: long enough to reach the peak, short for the start of a run
)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes of a step over all devices, with the largest buckets.

    B prompts of P tokens, with G completions of R tokens each, in `parts` micro-batches.
    """

    B: int
    G: int
    P: int
    R: int
    parts: int = 1

    @property
    def N(self) -> int:
        return self.B * self.G


def layer_parameters(config: LlamaConfig) -> int:
    """Number of parameters of the seven matrices of all layers."""
    c = config
    attention = c.hidden_size * c.head_dim * (2 * c.num_attention_heads + 2 * c.num_key_value_heads)
    return c.num_hidden_layers * (attention + 3 * c.hidden_size * c.intermediate_size)


def attention_flops(config: LlamaConfig, shapes: Shapes) -> int:
    """FLOPs of attention in a forward pass.

    Causal attention over own tokens needs 2 L H A T per token. Completions also attend to their whole prompt.
    """
    width = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    prompts = shapes.B * shapes.P * 2 * width * shapes.P
    rows = shapes.N * shapes.R * (2 * width * shapes.R + 4 * width * shapes.P)
    return rows + (prompts if shapes.P > 1 else 0)


def tokens(shapes: Shapes) -> int:
    """Number of tokens that a pass computes. A prompt is computed once for its group."""
    return shapes.N * shapes.R + (shapes.B * shapes.P if shapes.P > 1 else 0)


def forward_flops(config: LlamaConfig, shapes: Shapes) -> int:
    """FLOPs of a forward pass: 2 x parameters per token, attention, and the head for completions only."""
    head = shapes.N * shapes.R * config.hidden_size * config.vocab_size
    return 2 * (tokens(shapes) * layer_parameters(config) + head) + attention_flops(config, shapes)


def update_flops(config: LlamaConfig, shapes: Shapes, *, frozen: bool, reference: bool) -> int:
    """FLOPs of a forward and a backward pass, and of a forward pass of the reference model if there is one.

    With a frozen base, whose weights need no gradient, 4 x parameters per token, else 6 x. Attention counts
    three times.
    """
    forward, attention = forward_flops(config, shapes), attention_flops(config, shapes)
    passes = 2 if frozen else 3
    return passes * (forward - attention) + 3 * attention + (forward if reference else 0)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each resource needs on its own. The program cannot be faster than `seconds`."""

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """Lower bound of the time, if compute and memory traffic overlap but collectives do not."""
        return max(self.compute, self.memory) + self.links

    @property
    def bound(self) -> str:
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))


def roofline(device: Device, *, flops: float, traffic: float, wire: float) -> Roofline:
    """The roofline of one device.

    flops: FLOPs. traffic: bytes read and written in device memory. wire: bytes sent to other devices.
    """
    return Roofline(flops / device.flops, traffic / device.bandwidth, wire / device.link)


def peak_flops(dtype: str) -> float:
    """Peak FLOP/s of one device.

    From the data sheet if the device is known and `dtype` is bfloat16, else measured with a matrix product.
    """
    kind = jax.local_devices()[0].device_kind
    sheet = data_sheet(kind) if dtype == "bfloat16" else None
    peak = sheet.flops if sheet else matmul_flops(dtype, QUICK_S)
    source = "its data sheet" if sheet else f"a product of {dtype} measured here"
    logging.info("MFU is relative to %.4g TFLOP/s, from %s (%s)", peak / 1e12, source, kind)
    return peak


class Mfu:
    """Model FLOPs utilisation: FLOPs of updates / FLOPs of all devices at peak in the same time.

    FLOPs are `update_flops`. Padding is counted, recomputation is not.
    """

    def __init__(self, model: LlamaConfig, mesh: Mesh, *, dtype: str, frozen: bool, reference: bool):
        self._model, self._frozen, self._reference = model, frozen, reference
        self._peak = peak_flops(dtype) * mesh.size

    def seconds_at_peak(self, batch: CompletionBatch) -> float:
        """Seconds that the update of a batch takes at MFU 1."""
        (B, P), (N, R) = batch.prompt.shape, batch.response.shape
        shapes = Shapes(B, N // B, P, R)
        return update_flops(self._model, shapes, frozen=self._frozen, reference=self._reference) / self._peak
