"""Llama in flax.linen: one module for pretraining, SFT, the GRPO update, prefill and decode.

A forward pass takes rows of tokens and, optionally, the keys and values of prompts that groups of
rows share; it returns hidden states and this pass's own keys and values. So a prompt is computed
once for its whole group, in training (gradients flow back through its keys and values) as in rollout.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from r2rec_jax.model.attention import Prefix, attend
from r2rec_jax.model.config import LlamaConfig
from r2rec_jax.model.lora import Linear, LoRAConfig
from r2rec_jax.model.rope import rotate


@flax.struct.dataclass
class Cache:
    """Own keys and values of N rows while decoding.

    `k`, `v`: [N, K, S, A] inside a layer, [L, N, K, S, A] for the model. `position` (int32, [] or [L]):
    the slots filled so far, the same for every row.
    """

    k: jax.Array
    v: jax.Array
    position: jax.Array

    def append(self, k, v) -> "Cache":
        """The model's cache after a pass that returned keys and values `k`, `v`, [L, N, K, T, A].

        Layers only read the cache: one write for all of them, at the end of a step, is done in
        place, where a scan that handed the cache from layer to layer would copy it every token.
        """

        def write(slots, new):
            return jax.lax.dynamic_update_slice_in_dim(
                slots, new.astype(slots.dtype), self.position[0], axis=3
            )

        return Cache(write(self.k, k), write(self.v, v), self.position + k.shape[3])


class RMSNorm(nn.Module):
    eps: float

    @nn.compact
    def __call__(self, x):
        scale = self.param(
            "scale", nn.with_logical_partitioning(nn.initializers.ones, ("norm",)), x.shape[-1:]
        )
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return normed.astype(x.dtype) * scale.astype(x.dtype)


class Attention(nn.Module):
    config: LlamaConfig
    lora: LoRAConfig | None

    @nn.compact
    def __call__(self, x_NTD, positions_NT, prefix, cache):
        c = self.config
        N, T, D = x_NTD.shape
        rows = x_NTD.reshape(N * T, D)

        def project(name, heads, axis):
            flat = Linear(heads * c.head_dim, ("embed", axis), self.lora, name=name)(rows)
            return flat.reshape(N, T, heads, c.head_dim)

        q_NTHA = rotate(project("q_proj", c.num_attention_heads, "heads"), positions_NT, c)
        k_NTKA = rotate(project("k_proj", c.num_key_value_heads, "kv_heads"), positions_NT, c)
        v_NTKA = project("v_proj", c.num_key_value_heads, "kv_heads")
        k, v = k_NTKA.swapaxes(1, 2), v_NTKA.swapaxes(1, 2)
        pasts = [] if prefix is None else [prefix]
        if cache is not None:
            pasts.append(Prefix(cache.k, cache.v, jnp.broadcast_to(cache.position, (N,))))
        out = attend(q_NTHA, k, v, *pasts).reshape(N * T, c.num_attention_heads * c.head_dim)
        return Linear(D, ("heads", "embed"), self.lora, name="o_proj")(out).reshape(N, T, D), (k, v)


class MLP(nn.Module):
    config: LlamaConfig
    lora: LoRAConfig | None

    @nn.compact
    def __call__(self, x_NTD):
        N, T, D = x_NTD.shape
        rows = x_NTD.reshape(N * T, D)
        gate = Linear(self.config.intermediate_size, ("embed", "mlp"), self.lora, name="gate_proj")(rows)
        up = Linear(self.config.intermediate_size, ("embed", "mlp"), self.lora, name="up_proj")(rows)
        down = Linear(D, ("mlp", "embed"), self.lora, name="down_proj")
        return down(jax.nn.silu(gate) * up).reshape(N, T, D)


class Block(nn.Module):
    """One decoder layer; `prefix` and `cache` are this layer's slices, as nn.scan hands them out."""

    config: LlamaConfig
    lora: LoRAConfig | None

    @nn.compact
    def __call__(self, x_NTD, positions_NT, prefix, cache):
        with jax.named_scope("attention"):
            normed = RMSNorm(self.config.rms_norm_eps, name="input_layernorm")(x_NTD)
            mixed, kv = Attention(self.config, self.lora, name="self_attn")(
                normed, positions_NT, prefix, cache
            )
            x_NTD = x_NTD + mixed
        with jax.named_scope("mlp"):
            normed = RMSNorm(self.config.rms_norm_eps, name="post_attention_layernorm")(x_NTD)
            x_NTD = x_NTD + MLP(self.config, self.lora, name="mlp")(normed)
        return x_NTD, kv


class Llama(nn.Module):
    """Decoder without its head's product: hidden states out, so that no [B, T, V] array need exist.

    `lora` None builds the bare base. `remat` recomputes each block in the backward pass.
    `dtype` is that of activations; parameters keep their own.
    """

    config: LlamaConfig
    lora: LoRAConfig | None = None
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, tokens_NT, start=0, prefix: Prefix | None = None, cache: Cache | None = None):
        """Runs rows of tokens.

        Args:
          tokens_NT: int32, right-padded.
          start: position of column 0, scalar or int32 [N] (a shared prompt's length, plus what is decoded).
          prefix: keys and values of shared prompts, [L, B, K, P, A].
          cache: own keys and values of earlier passes; None in a full forward.

        Returns:
          (hidden [N, T, D] after the last norm, (k, v) of these tokens, each [L, N, K, T, A]).
        """
        c = self.config
        embed_init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        embedding = self.param("embed_tokens", embed_init, (c.vocab_size, c.hidden_size), jnp.float32)
        if not c.tie_word_embeddings:
            head_init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", "vocab"))
            self.param("lm_head", head_init, (c.hidden_size, c.vocab_size), jnp.float32)
        x_NTD = jnp.take(embedding, tokens_NT, axis=0).astype(self.dtype)
        N, T = tokens_NT.shape
        positions_NT = jnp.broadcast_to(start, (N,))[:, None] + jnp.arange(T)

        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        layers = nn.scan(
            block,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "lora": True},
            in_axes=(nn.broadcast, 0, 0),
            length=c.num_hidden_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x_NTD, kv = layers(c, self.lora, name="layers")(x_NTD, positions_NT, prefix, cache)
        return RMSNorm(c.rms_norm_eps, name="norm")(x_NTD), kv


def head(params) -> jax.Array:
    """The [D, V] output projection of an (unboxed) `params` tree: the embedding's transpose when tied."""
    return params["lm_head"] if "lm_head" in params else params["embed_tokens"].T


def init_variables(model: Llama, seed: int) -> dict:
    """Fresh variables, unboxed: {'params': ..., 'lora': ... if the model has adapters}."""
    keys = dict(zip(("params", "lora"), jax.random.split(jax.random.key(seed)), strict=True))
    return nn.meta.unbox(model.init(keys, jnp.zeros((1, 2), jnp.int32)))


def abstract_variables(model: Llama) -> dict:
    """Shapes, dtypes and logical axes (as flax metadata boxes) of all variables, nothing allocated."""
    keys = {"params": jax.random.key(0), "lora": jax.random.key(0)}
    return jax.eval_shape(model.init, keys, jnp.zeros((1, 2), jnp.int32))
