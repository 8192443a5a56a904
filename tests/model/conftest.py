"""A tiny Llama, golden files as model folders, and one way of comparing trees."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from r2rec_jax.model.architecture import LlamaConfig, RopeScaling

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True, scope="module")
def full_precision():
    """On a GPU a float32 product is TF32 unless told otherwise; comparisons here are float32's."""
    with jax.default_matmul_precision("float32"):
        yield


@pytest.fixture(scope="session")
def config() -> LlamaConfig:
    """Every dimension has a size of its own, so that no two can be confused."""
    return LlamaConfig(
        vocab_size=53,
        hidden_size=20,
        intermediate_size=28,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        rms_norm_eps=1e-5,
        rope_theta=1000.0,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16),
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="session")
def randomize():
    """Replaces a tree's leaves by noise of std 0.3, so that adapters matter."""

    def replace(tree, seed=0):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), tree)

    return replace


@pytest.fixture(scope="session")
def assert_close():
    """Asserts that trees agree to `rtol`, each leaf's error measured against its largest entry."""

    def check(actual, expected, rtol=1e-4):
        def leaf(path, a, b):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            assert a.shape == b.shape, jax.tree_util.keystr(path)
            np.testing.assert_allclose(
                a,
                b,
                rtol=0,
                atol=rtol * np.abs(b).max() + 1e-12,
                err_msg=jax.tree_util.keystr(path),
            )

        jax.tree_util.tree_map_with_path(leaf, actual, expected)

    return check


@pytest.fixture(scope="session", params=["llama_scaled", "llama_tied", "llama_plain"])
def golden(request, tmp_path_factory):
    """(arrays of a golden file, a model folder that holds its weights)."""
    arrays = dict(np.load(GOLDEN / f"{request.param}.npz"))
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "config.json").write_text(json.dumps(json.loads(str(arrays["config"]))))
    weights = {
        name.removeprefix("weight/"): array.astype(np.float32)
        for name, array in arrays.items()
        if name.startswith("weight/")
    }
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    return arrays, folder
