"""The key-value cache of decoding: keys and values of the slots' prompts and of the rows' own responses.

Both are a `Prefix` of an unrolled model. In int8, each token's key and value of a head has its own scale, the
largest absolute entry / 127.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from r2rec_jax.model.attention import Prefix
from r2rec_jax.model.quantize import quantize
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import constrain

AXES = ("batch", "kv_heads", "length", "head_dim")
KINDS = ("", "int8")


def check(kind: str) -> None:
    """Raises UserError for an unknown `rollout.cache`."""
    if kind not in KINDS:
        raise UserError(f"rollout.cache={kind!r} is unknown: use 'int8', or '' for the model's own dtype")


def of_prompts(prefix: Prefix, kind: str) -> Prefix:
    """Converts the result of `prefill` to a cache of this kind."""
    if not kind:
        return prefix
    (k, k_scale), (v, v_scale) = (
        zip(*(quantize(layer, axis=-1) for layer in layers), strict=True) for layers in (prefix.k, prefix.v)
    )
    return Prefix(k, v, prefix.length, k_scale, v_scale)


def empty(prompt: Prefix, rows: int, tokens: int) -> Prefix:
    """An empty cache of `rows` rows with room for `tokens` tokens each, in the dtypes of `prompt`."""

    def zeros(layers):
        shape = (rows, layers[0].shape[1], tokens, *layers[0].shape[3:])
        return tuple(constrain(jnp.zeros(shape, layer.dtype), *AXES[: layer.ndim]) for layer in layers)

    fields = (prompt.k_scale, prompt.v_scale)
    scales = (None if scale is None else zeros(scale) for scale in fields)
    return Prefix(zeros(prompt.k), zeros(prompt.v), jnp.zeros(rows, jnp.int32), *scales)


def write(cache: Prefix, k_NK1A, v_NK1A) -> Prefix:
    """Appends one token per row to one layer's `cache`, each at the end of its row.

    The caller must not use the old cache afterwards, or XLA copies all of it for every token. Full rows do
    not change.
    """

    @jax.vmap
    def put(slots, place, token):
        return slots.at[:, place].set(token, mode="drop")

    def extended(slots, token):
        written = put(slots, cache.length, token[:, :, 0].astype(slots.dtype))
        return constrain(written, *AXES[: slots.ndim])

    length = cache.length + 1
    if cache.k_scale is None:
        return Prefix(extended(cache.k, k_NK1A), extended(cache.v, v_NK1A), length)
    (k, k_scale), (v, v_scale) = quantize(k_NK1A, axis=-1), quantize(v_NK1A, axis=-1)
    scales = extended(cache.k_scale, k_scale), extended(cache.v_scale, v_scale)
    return Prefix(extended(cache.k, k), extended(cache.v, v), length, *scales)


def advance(cache: Prefix, layers: Sequence[Prefix], alive_N) -> Prefix:
    """The model's cache from its layers after one token. The lengths of rows that are not alive stay."""
    k, v = (tuple(getattr(layer, name) for layer in layers) for name in ("k", "v"))
    scales = (None, None)
    if cache.k_scale is not None:
        scales = (tuple(getattr(layer, name) for layer in layers) for name in ("k_scale", "v_scale"))
    return Prefix(k, v, cache.length + alive_N, *scales)
