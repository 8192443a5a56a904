"""Rotary position embedding, with Llama 3's frequency scaling."""

import jax.numpy as jnp
import numpy as np

from r2rec_jax.model.config import LlamaConfig


def inverse_frequencies(config: LlamaConfig) -> np.ndarray:
    """Angular step per position of each pair of channels, float32 [A/2].

    Llama 3 stretches long wavelengths by `factor`, keeps short ones, and blends in between.
    Source: "The Llama 3 Herd of Models" 3.2, as released in Meta's reference code.
    """
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim)
    scaling = config.rope_scaling
    if scaling is not None:
        periods_in_context = scaling.original_max_position_embeddings * frequencies / (2 * np.pi)
        span = scaling.high_freq_factor - scaling.low_freq_factor
        keep = np.clip((periods_in_context - scaling.low_freq_factor) / span, 0.0, 1.0)
        frequencies = keep * frequencies + (1 - keep) * frequencies / scaling.factor
    return frequencies.astype(np.float32)


def rotate(x_BTHA, positions_BT, config: LlamaConfig):
    """Rotates the two halves of each head by position; computed in float32, returned in x's dtype."""
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * inverse_frequencies(config)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x_BTHA.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTHA.dtype)
