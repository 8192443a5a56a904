"""Rotary position embedding, with Llama 3's frequency scaling."""

import jax.numpy as jnp
import numpy as np

from r2rec_jax.model.architecture import LlamaConfig


def inverse_frequencies(config: LlamaConfig) -> np.ndarray:
    """Angular step per position of each pair of channels, float32 [A/2].

    Llama 3 stretches long wavelengths by `factor`, keeps short ones, and interpolates in between.
    Source: "The Llama 3 Herd of Models" 3.2, as released in Meta's reference code.

    The rounding to float32 is that of this code and of Hugging Face. A step that differs by one bit changes
    the angle at position 4096 by about 1e-4 radians from the one used in training.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    # numpy's float32 power is less accurate than torch's, so only this power is computed in float64.
    powers = np.power(np.float32(config.rope_theta), exponents, dtype=np.float64)
    frequencies = np.float32(1) / powers.astype(np.float32)
    scaling = config.rope_scaling
    if scaling is not None:
        factor, low, high, original = np.array(
            [
                scaling.factor,
                scaling.low_freq_factor,
                scaling.high_freq_factor,
                scaling.original_max_position_embeddings,
            ],
            np.float32,
        )
        periods_in_context = original / (np.float32(2 * np.pi) / frequencies)
        keep = np.clip((periods_in_context - low) / (high - low), 0, 1)
        frequencies = (1 - keep) * frequencies / factor + keep * frequencies
    return frequencies


def rotate(x_BTHA, positions_BT, config: LlamaConfig):
    """Rotates the two halves of each head by position. Computed in float32, returned in x's dtype."""
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * inverse_frequencies(config)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x_BTHA.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTHA.dtype)
