"""Rotary embedding against the published formulas and Hugging Face's own numbers."""

import cmath
import json
import math
from pathlib import Path

import numpy as np
import pytest

from r2rec_jax.model.architecture import parse_config
from r2rec_jax.model.rope import inverse_frequencies, rotate

PUBLISHED = np.load(Path(__file__).parents[1] / "golden" / "llama_frequencies.npz")
NAMES = [name.removeprefix("config/") for name in PUBLISHED if name.startswith("config/")]


def architecture(name: str):
    return parse_config(json.loads(str(PUBLISHED[f"config/{name}"])))


@pytest.mark.parametrize("name", NAMES)
def test_frequencies_are_hugging_faces_to_the_last_bit(name):
    np.testing.assert_array_equal(
        inverse_frequencies(architecture(name)), PUBLISHED[f"inverse_frequencies/{name}"]
    )


def test_frequencies_of_the_golden_models(golden):
    arrays, _ = golden
    config = parse_config(json.loads(str(arrays["config"])))
    np.testing.assert_array_equal(inverse_frequencies(config), arrays["inverse_frequencies"])


def published_frequency(config, channel: int) -> float:
    """Su et al. 2021, equation 15; then by wavelength as Llama 3.1 publishes it."""
    frequency = config.rope_theta ** (-2 * channel / config.head_dim)
    scaling = config.rope_scaling
    if scaling is None:
        return frequency
    context, wavelength = scaling.original_max_position_embeddings, 2 * math.pi / frequency
    if wavelength < context / scaling.high_freq_factor:
        return frequency
    if wavelength > context / scaling.low_freq_factor:
        return frequency / scaling.factor
    smooth = (context / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    return (1 - smooth) * frequency / scaling.factor + smooth * frequency


@pytest.mark.parametrize("name", NAMES)
def test_frequencies_against_the_published_formula(name):
    config = architecture(name)
    expected = [published_frequency(config, channel) for channel in range(config.head_dim // 2)]
    np.testing.assert_allclose(inverse_frequencies(config), expected, rtol=1e-6)


def test_the_8b_has_all_three_bands():
    """Else the blend would be tested nowhere."""
    config = architecture("DeepSeek-R1-Distill-Llama-8B")
    plain = config.rope_theta ** (-np.arange(0, 128, 2) / 128)
    ratio = plain / inverse_frequencies(config)
    kept, stretched = ratio < 1 + 1e-6, ratio > 8 - 1e-5
    assert kept.any() and stretched.any() and not np.all(kept | stretched)


def test_rotation_is_a_complex_product(config):
    """Channels a and a + A/2 are one complex number, also beyond the original context of 16."""
    positions = np.array([[0, 1, 15, 16, 17], [40, 100, 255, 1000, 3000]], np.int32)
    x = np.random.default_rng(0).normal(size=(2, 5, 3, config.head_dim)).astype(np.float32)
    half = config.head_dim // 2
    got = np.asarray(rotate(x, positions, config))
    for b, t, h, channel in np.ndindex(2, 5, 3, half):
        number = complex(x[b, t, h, channel], x[b, t, h, channel + half])
        angle = int(positions[b, t]) * published_frequency(config, channel)
        turned = number * cmath.exp(1j * angle)
        found = complex(got[b, t, h, channel], got[b, t, h, channel + half])
        # A float32 angle of up to 3000 radians is off by up to half its last bit, 1.2e-4.
        assert abs(found - turned) < 1e-6 + 4e-7 * angle


def test_scores_depend_on_distance_alone(config):
    rng = np.random.default_rng(1)
    q, k = rng.normal(size=(2, 1, 1, 1, config.head_dim)).astype(np.float32)

    def score(query: int, key: int) -> float:
        turned_q = rotate(q, np.array([[query]], np.int32), config)
        return float(np.sum(turned_q * rotate(k, np.array([[key]], np.int32), config)))

    assert score(7, 2) == pytest.approx(score(205, 200), rel=1e-4)
    assert score(7, 2) != pytest.approx(score(207, 200), rel=1e-2)
