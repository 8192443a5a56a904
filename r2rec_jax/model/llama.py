"""Llama in flax.linen: one module for pretraining, SFT, the GRPO update, prefill and decode.

A forward pass takes rows of tokens and optionally the keys and values of prompts that groups of rows share.
It returns hidden states and the keys and values of its own tokens. A prompt is therefore computed once for
its group, in rollout and in training, where gradients flow through its keys and values.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.attention import RESIDUALS, Prefix, attend
from r2rec_jax.model.cache import write
from r2rec_jax.model.config import REMAT, LoRAConfig
from r2rec_jax.model.item_tokens import ItemTokens
from r2rec_jax.model.lora import Linear
from r2rec_jax.model.rope import rotate
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import constrain, gathered

RESIDUAL = ("batch", "length", "hidden")


def remat_policy(name: str):
    """The jax.checkpoint policy of `model.remat`, which selects the saved activations of a layer.

    none: everything is saved, with the most memory and no recomputation (this function is not called).
    dots: outputs of linear layers and of attention.
    block: each block's input; the rest is recomputed.
    offload: as block, but block inputs are stored in host memory.

    Raises:
      UserError: an unknown name, or the device cannot access pinned host memory.
    """
    policies = jax.checkpoint_policies
    if name == "block":
        return policies.nothing_saveable
    if name == "dots":
        return policies.save_from_both_policies(
            policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(RESIDUALS)
        )
    if name != "offload":
        raise UserError(f"model.remat={name!r} is unknown: use one of {', '.join(REMAT)}")
    device = jax.local_devices()[0]
    if "pinned_host" not in [memory.kind for memory in device.addressable_memories()]:
        raise UserError(
            f"model.remat=offload needs a device with access to pinned host memory, but {device} has none: "
            "use model.remat=block"
        )
    return policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["block_input"],
        offload_src="device",
        offload_dst="pinned_host",
    )


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
    int8: bool
    implementation: str

    @nn.compact
    def __call__(self, x_NTD, positions_NT, pasts, cache):
        c = self.config
        N, T, D = x_NTD.shape
        rows = x_NTD.reshape(N * T, D)

        def project(name, heads, axis):
            flat = Linear(heads * c.head_dim, ("embed", axis), self.lora, self.int8, name=name)(rows)
            return constrain(flat.reshape(N, T, heads, c.head_dim), "batch", "length", axis, "head_dim")

        q_NTHA = rotate(project("q_proj", c.num_attention_heads, "heads"), positions_NT, c)
        k_NTKA = rotate(project("k_proj", c.num_key_value_heads, "kv_heads"), positions_NT, c)
        v_NTKA = project("v_proj", c.num_key_value_heads, "kv_heads")
        k, v = k_NTKA.swapaxes(1, 2), v_NTKA.swapaxes(1, 2)
        if cache is None:
            kept = k, v
            out = attend(q_NTHA, k, v, *pasts, implementation=self.implementation)
        else:
            kept = write(cache, k, v)
            out = attend(q_NTHA, None, None, *pasts, kept, implementation=self.implementation)
        out = out.reshape(N * T, c.num_attention_heads * c.head_dim)
        o_proj = Linear(D, ("heads", "embed"), self.lora, self.int8, name="o_proj")
        return o_proj(out).reshape(N, T, D), kept


class MLP(nn.Module):
    config: LlamaConfig
    lora: LoRAConfig | None
    int8: bool

    @nn.compact
    def __call__(self, x_NTD):
        N, T, D = x_NTD.shape
        rows = x_NTD.reshape(N * T, D)

        def linear(features, axes, name):
            return Linear(features, axes, self.lora, self.int8, name=name)

        gate = linear(self.config.intermediate_size, ("embed", "mlp"), "gate_proj")(rows)
        up = linear(self.config.intermediate_size, ("embed", "mlp"), "up_proj")(rows)
        return linear(D, ("mlp", "embed"), "down_proj")(jax.nn.silu(gate) * up).reshape(N, T, D)


class Block(nn.Module):
    """One decoder layer. `pasts` and `cache` are those of this layer."""

    config: LlamaConfig
    lora: LoRAConfig | None
    int8: bool
    attention: str

    @nn.compact
    def __call__(self, x_NTD, positions_NT, pasts, cache=None):
        x_NTD = checkpoint_name(x_NTD, "block_input")
        with jax.named_scope("attention"):
            normed = RMSNorm(self.config.rms_norm_eps, name="input_layernorm")(x_NTD)
            attention = Attention(self.config, self.lora, self.int8, self.attention, name="self_attn")
            mixed, kept = attention(normed, positions_NT, pasts, cache)
            x_NTD = constrain(x_NTD + mixed, *RESIDUAL)
        with jax.named_scope("mlp"):
            normed = RMSNorm(self.config.rms_norm_eps, name="post_attention_layernorm")(x_NTD)
            x_NTD = x_NTD + MLP(self.config, self.lora, self.int8, name="mlp")(normed)
        return constrain(x_NTD, *RESIDUAL), kept


class Llama(nn.Module):
    """Decoder that returns hidden states. It does not apply the output head, so no [B, T, V] array exists.

    `lora`: adapters; None builds the base only. Dropout needs `rngs={'dropout': key}` and is off without it.
    `dtype`: dtype of activations. Parameters keep their own.
    `remat`: what the backward pass recomputes, see `remat_policy`.
    `int8`: whether the kernels of linear layers are int8, with a scale for each output.
    `attention`: attention implementation, see `choose_attention`.
    `unrolled`: whether layers are separate, each with its own parameters, keys and values. A scan over
      stacked layers copies each layer's slice before use. This is negligible in a training step, but not in
      the decoding of a single token.
    `items`: shape of a table of item vectors. Token ids from the vocabulary size on are items
      (item_tokens.py).
    """

    config: LlamaConfig
    lora: LoRAConfig | None = None
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"
    int8: bool = False
    attention: str = "xla"
    unrolled: bool = False
    items: tuple[int, int] | None = None

    @nn.compact
    def __call__(self, tokens_NT, start=0, *pasts: Prefix, cache: Prefix | None = None):
        """Runs rows of tokens.

        Args:
          tokens_NT: int32, right-padded.
          start: position of column 0, scalar or int32 [N] (length of the shared prompt plus decoded tokens).
          pasts: keys and values of the preceding tokens.
          cache: for decoding one token per row with an unrolled model: keys and values of the rows' earlier
            tokens after `pasts`, with room for this token.

        Returns:
          (hidden [N, T, D] after the last norm, (k, v) of these tokens, each [L, N, K, T, A], or tuples
          of L arrays if unrolled). With a cache, its updated layers, a list of L Prefixes, replace (k, v).
        """
        c = self.config
        embed_init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        embedding = self.param("embed_tokens", embed_init, (c.vocab_size, c.hidden_size), jnp.float32)
        if not c.tie_word_embeddings:
            head_init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", "vocab"))
            self.param("lm_head", head_init, (c.hidden_size, c.vocab_size), jnp.float32)
        table = gathered(embedding, "vocab", "embed")
        if self.items is None:
            x_NTD = jnp.take(table, tokens_NT, axis=0).astype(self.dtype)
        else:
            V, D = table.shape
            items = ItemTokens(self.items, D, self.dtype, name="item_tokens")(tokens_NT - V)
            words = jnp.take(table, jnp.minimum(tokens_NT, V - 1), axis=0).astype(self.dtype)
            x_NTD = jnp.where((tokens_NT < V)[:, :, None], words, items)
        x_NTD = constrain(x_NTD, *RESIDUAL)
        N, T = tokens_NT.shape
        positions_NT = jnp.broadcast_to(start, (N,))[:, None] + jnp.arange(T)

        block, settings = Block, (c, self.lora, self.int8, self.attention)
        if self.remat != "none":
            block = nn.remat(Block, prevent_cse=False, policy=remat_policy(self.remat))
        if self.unrolled:
            kept = []
            for number in range(c.num_hidden_layers):
                own = None if cache is None else cache.layer(number)
                layer = block(*settings, name=layer_name(number))
                x_NTD, of_layer = layer(x_NTD, positions_NT, tuple(p.layer(number) for p in pasts), own)
                kept.append(of_layer)
            if cache is None:
                kept = tuple(zip(*kept, strict=True))
        else:
            layers = nn.scan(
                block,
                variable_axes={"params": 0, "lora": 0},
                split_rngs={"params": True, "lora": True, "dropout": True},
                in_axes=(nn.broadcast, 0),
                length=c.num_hidden_layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x_NTD, kept = layers(*settings, name="layers")(x_NTD, positions_NT, pasts)
        return RMSNorm(c.rms_norm_eps, name="norm")(x_NTD), kept


def layer_name(number: int) -> str:
    """Name of a layer's parameters in an unrolled model."""
    return f"layer_{number}"


def head(params) -> jax.Array:
    """The [D, V] output projection of an (unboxed) `params` tree, the transposed embedding if tied."""
    if "lm_head" in params:
        return gathered(params["lm_head"], "embed", "vocab")
    return gathered(params["embed_tokens"], "vocab", "embed").T


@functools.partial(jax.jit, static_argnums=(0, 1))  # op by op, the scan over layers compiles at every call
def init_variables(model: Llama, seed: int) -> dict:
    """Initializes variables, unboxed.

    Keys: 'params'; 'lora' if the model has adapters; 'projector' and 'items' (zeros) if it has item tokens.
    """
    keys = dict(zip(("params", "lora"), jax.random.split(jax.random.key(seed)), strict=True))
    return nn.meta.unbox(model.init(keys, jnp.zeros((1, 2), jnp.int32)))


def abstract_variables(model: Llama) -> dict:
    """Shapes, dtypes and logical axes (as flax metadata boxes) of all variables, without allocation."""
    keys = {"params": jax.random.key(0), "lora": jax.random.key(0)}
    return jax.eval_shape(model.init, keys, jnp.zeros((1, 2), jnp.int32))
