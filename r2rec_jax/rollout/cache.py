"""Keys and values while decoding: of the slots' prompts, and of the rows' own responses.

Both are `Prefix`es of an unrolled model. In int8, each token's key and value of a head have a unit of
their own, the largest entry over 127.
"""

import jax
import jax.numpy as jnp

from r2rec_jax.model.attention import Prefix
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import constrain

AXES = ("batch", "kv_heads", "length", "head_dim")
KINDS = ("", "int8")


def check(kind: str) -> None:
    """Raises UserError for a `rollout.cache` that does not exist."""
    if kind not in KINDS:
        raise UserError(f"rollout.cache={kind!r} is unknown: use 'int8', or '' for the model's own dtype")


def of_prompts(prefix: Prefix, kind: str) -> Prefix:
    """What `prefill` computed, as it is kept."""
    if not kind:
        return prefix
    (k, k_scale), (v, v_scale) = _quantized(prefix.k), _quantized(prefix.v)
    return Prefix(k, v, prefix.length, k_scale, v_scale)


def empty(prompt: Prefix, rows: int, tokens: int) -> Prefix:
    """Of `rows` rows that may say `tokens` tokens, kept as `prompt` is."""

    def zeros(layers):
        shape = (rows, layers[0].shape[1], tokens, *layers[0].shape[3:])
        return tuple(constrain(jnp.zeros(shape, layer.dtype), *AXES[: layer.ndim]) for layer in layers)

    fields = (prompt.k_scale, prompt.v_scale)
    scales = (None if scale is None else zeros(scale) for scale in fields)
    return Prefix(zeros(prompt.k), zeros(prompt.v), jnp.zeros(rows, jnp.int32), *scales)


def append(own: Prefix, k, v, alive_N) -> Prefix:
    """`own` after a pass of one token a row, whose keys and values are k and v, L arrays [N, K, 1, A].

    Rows that are not alive stay as long as they are.
    """

    @jax.vmap
    def put(slots, place, token):
        return slots.at[:, place].set(token, mode="drop")

    def write(layers, new):
        return tuple(
            constrain(put(layer, own.length, token[:, :, 0].astype(layer.dtype)), *AXES[: layer.ndim])
            for layer, token in zip(layers, new, strict=True)
        )

    length = own.length + alive_N
    if own.k_scale is None:
        return Prefix(write(own.k, k), write(own.v, v), length)
    (k, k_scale), (v, v_scale) = _quantized(k), _quantized(v)
    scales = write(own.k_scale, k_scale), write(own.v_scale, v_scale)
    return Prefix(write(own.k, k), write(own.v, v), length, *scales)


def _quantized(layers) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """(int8 [.., A], float32 [..]) of each layer's float array [.., A]."""
    numbers, scales = [], []
    for layer in layers:
        x = layer.astype(jnp.float32)
        largest = jnp.max(jnp.abs(x), axis=-1)
        scale = jnp.where(largest > 0, largest, 1.0) / 127.0
        numbers.append(jnp.round(x / scale[..., None]).astype(jnp.int8))
        scales.append(scale)
    return tuple(numbers), tuple(scales)
