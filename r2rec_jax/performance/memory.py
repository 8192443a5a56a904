"""Estimates bytes on one device by kind: stored arrays from their shardings, activations in closed form.

The closed form of the activations sums what each layer saves, the peak of one layer's backward pass, and the
peak of the head. Its coefficients count the arrays of a layer that XLA stores separately. A test compares
the sum with `memory_analysis` of compiled float32 steps. On a GPU, fusion stores fewer arrays.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from r2rec_jax.model.attention import BLOCK
from r2rec_jax.model.flops import Shapes
from r2rec_jax.model.llama import Llama
from r2rec_jax.model.policy import Policy

HEAD_CHUNK = 512  # rows of logits that model/logprobs.py computes at once


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    optimizer: both moments. gradients: of the trainable parameters. reference: GRPO's frozen adapter.
    activations: of the update. decoder: the rollout's copy of the weights. kv_cache: of the rollout's prompts
    and completions. prefill: activations of the prefill.
    """

    base: int
    adapter: int
    optimizer: int
    gradients: int
    reference: int = 0
    activations: int = 0
    decoder: int = 0
    kv_cache: int = 0
    prefill: int = 0

    @property
    def resident(self) -> int:
        return self.base + self.adapter + self.optimizer + self.reference

    @property
    def update(self) -> int:
        return self.resident + self.gradients + self.activations

    @property
    def rollout(self) -> int:
        return self.resident + self.decoder + self.kv_cache + self.prefill

    @property
    def peak(self) -> int:
        return max(self.update, self.rollout)


def device_bytes(tree) -> int:
    """Bytes on one device of a tree of sharded arrays or ShapeDtypeStructs."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def estimate(
    policy: Policy,
    mesh,
    shapes: Shapes,
    *,
    scores: bool,
    decoder: dict | None = None,
    int8_cache: bool = False,
) -> Memory:
    """The memory of a training step of these shapes.

    decoder: the weights that GRPO's rollout decodes with; None for a stage without rollouts. scores: whether
    attention stores blocks of scores in memory ('xla'); cuDNN's kernels store none.
    """
    trained, grpo = device_bytes(policy.trainable), decoder is not None
    return Memory(
        base=device_bytes(policy.frozen),
        adapter=trained,
        optimizer=2 * trained,
        gradients=trained,
        reference=trained if grpo else 0,
        activations=update_activations(policy.model, mesh, shapes, scores=scores),
        decoder=device_bytes(decoder) if grpo else 0,
        kv_cache=kv_cache_bytes(policy.model, mesh, shapes, int8=int8_cache) if grpo else 0,
        prefill=prefill_activations(policy.model, mesh, shapes, scores=scores) if grpo else 0,
    )


@dataclasses.dataclass(frozen=True)
class _Widths:
    """Sizes per token on one device, in numbers; `bytes` is the size of one number."""

    D: int
    F: int
    Q: int  # all query heads
    KV: int  # keys and values
    H: int
    V: int
    L: int
    bytes: int


def _widths(model: Llama, mesh) -> _Widths:
    c, split = model.config, mesh.shape["tensor"]
    return _Widths(
        D=c.hidden_size,
        F=c.intermediate_size // split,
        Q=c.num_attention_heads * c.head_dim // split,
        KV=2 * c.num_key_value_heads * c.head_dim // split,
        H=c.num_attention_heads // split,
        V=c.vocab_size // split,
        L=c.num_hidden_layers,
        bytes=jnp.dtype(model.dtype).itemsize,
    )


def _rows(mesh) -> int:
    return mesh.shape["data"] * mesh.shape["fsdp"]


def update_activations(model: Llama, mesh, shapes: Shapes, *, scores: bool) -> int:
    """Peak bytes of the update beyond its arguments and gradients."""
    w, split = _widths(model, mesh), _rows(mesh) * shapes.parts
    prompts, rows = -(-shapes.B // split), -(-shapes.N // split)
    prompt_tokens = prompts * shapes.P if shapes.P > 1 else 0
    tokens = rows * shapes.R
    kept = w.L * ((prompt_tokens + tokens) * _kept_of_layer(model, w) + prompt_tokens * w.KV) * w.bytes
    peaks = [
        _layer_backward(model, w, tokens) + scores * _block_scores(w, rows, shapes.R, shapes.P + shapes.R),
        _layer_backward(model, w, prompt_tokens) + scores * _block_scores(w, prompts, shapes.P, shapes.P),
        min(tokens, HEAD_CHUNK) * w.V * 4 * 3 + tokens * w.D * 2 * w.bytes,
    ]
    whole_weights = 2 * _layer_weights(model, mesh) if mesh.shape["fsdp"] > 1 else 0
    return kept + max(peaks) + whole_weights


def _kept_of_layer(model: Llama, w: _Widths) -> int:
    """Numbers per token that a layer saves for its backward pass."""
    match model.remat:
        case "offload":  # the block's input, in host memory
            return 0
        case "block":
            return w.D
        case "dots":  # also the outputs of the linear layers, their adapters and attention
            return 5 * w.D + 3 * w.Q + 2 * w.KV + 4 * w.F
        case _:  # fitted to XLA's count, like the coefficients in _layer_backward
            return 8 * w.D + 4 * w.Q + w.KV + 6 * w.F


def _layer_backward(model: Llama, w: _Widths, tokens: int) -> int:
    """Peak bytes of one layer's recomputation and backward pass.

    It counts gate, up, their product and its factor with three gradients, and likewise queries, outputs,
    norms and sums of the residual stream. Without recomputation it is half.
    """
    again = tokens * (7 * w.F + 5 * w.D + 6 * w.Q + 3 * w.KV) * w.bytes
    return again if model.remat in ("block", "offload") else again // 2


def _block_scores(w: _Widths, rows: int, queries: int, keys: int) -> int:
    """Bytes of two float32 score arrays, weights and their gradient, of one block of queries."""
    return 2 * rows * w.H * min(queries, BLOCK) * keys * 4


def _layer_weights(model: Llama, mesh) -> int:
    c = model.config
    matrices = c.hidden_size * (
        2 * c.num_attention_heads * c.head_dim
        + 2 * c.num_key_value_heads * c.head_dim
        + 3 * c.intermediate_size
    )
    return matrices // mesh.shape["tensor"] * jnp.dtype(model.dtype).itemsize


def prefill_activations(model: Llama, mesh, shapes: Shapes, *, scores: bool) -> int:
    """Peak bytes of one layer's forward pass over all prompts."""
    w, prompts = _widths(model, mesh), -(-shapes.B // _rows(mesh))
    tokens = prompts * shapes.P
    layer = tokens * (3 * w.F + 3 * w.D + 3 * w.Q + 2 * w.KV) * w.bytes
    return layer + scores * _block_scores(w, prompts, shapes.P, shapes.P) // 2


def kv_cache_bytes(model: Llama, mesh, shapes: Shapes, *, int8: bool = False) -> int:
    """Bytes of the KV cache: each prompt once for its group, and R positions per completion."""
    w, split = _widths(model, mesh), _rows(mesh)
    prompts, rows = -(-shapes.B // split), -(-shapes.N // split)
    of_token = w.KV + w.KV // model.config.head_dim * 4 if int8 else w.KV * w.bytes
    return w.L * (prompts * shapes.P + rows * shapes.R) * of_token
