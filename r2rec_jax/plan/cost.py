"""Arithmetic and traffic in closed form, and the time no run can beat (Williams et al. 2009, the roofline).

FLOPs count a multiply-add as two. Recomputation is not counted, nor are adapters, norms and softmax.
"""

import dataclasses

from r2rec_jax.model.config import LlamaConfig
from r2rec_jax.plan.devices import Device
from r2rec_jax.plan.programs import Shapes


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
