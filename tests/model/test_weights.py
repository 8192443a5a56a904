"""Base models in the orbax form: read back whole, cast, and refused when they do not fit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from r2rec_jax.model import huggingface, weights
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def params(config):
    return init_variables(Llama(config), seed=0)["params"]


def write(folder, config, params):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(huggingface.to_hf(config)))
    weights.save_orbax(folder, traverse_util.flatten_dict(params).items())
    return folder


@pytest.fixture
def folder(config, params, tmp_path):
    return write(tmp_path / "orbax", config, params)


def test_round_trip_whatever_the_chunks(config, params, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "CHUNK_BYTES", 100)
    folder = write(tmp_path / "orbax", config, params)
    read_config, read = weights.load_weights(folder, np.float32)
    assert read_config == config
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_weights_are_cast_when_read(folder, params):
    _, read = weights.load_weights(folder, jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, read, jax.tree.map(lambda a: a.astype(jnp.bfloat16), params))


def test_a_hugging_face_folder_is_read_too(config, params, tmp_path):
    huggingface.save_params(tmp_path / "hf", config, params, dtype=np.float32)
    _, read = weights.load_weights(tmp_path / "hf", np.float32)
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_parameters_come_one_by_one(folder, params):
    _, leaves = weights.read_weights(folder, np.float32)
    path, leaf = next(leaves)
    np.testing.assert_array_equal(leaf, traverse_util.flatten_dict(params)[path])


def test_every_fault_is_in_one_line_before_anything_is_read(config, params, tmp_path):
    flat = traverse_util.flatten_dict(params)
    del flat["norm", "scale"]
    flat["bias",] = jnp.zeros(3)
    flat["embed_tokens",] = jnp.zeros((53, 21))
    flat["lm_head",] = flat["lm_head",].astype(jnp.int8)
    folder = write(tmp_path / "orbax", config, traverse_util.unflatten_dict(flat))
    with pytest.raises(UserError) as refusal:
        weights.read_weights(folder, np.float32)
    message = str(refusal.value)
    assert "\n" not in message
    for fault in (
        "missing: norm/scale;",
        "unknown: bias;",
        "misshaped: embed_tokens [53, 21] instead of [53, 20];",
        "wrong dtype: lm_head int8 instead of a floating one;",
    ):
        assert fault in message


def test_damage_is_named(folder):
    for file in (folder / "params" / "state").glob("ocdbt.process_*/d/*"):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match="is damaged") as refusal:
        weights.load_weights(folder, np.float32)
    assert "\n" not in str(refusal.value)


def test_an_empty_params_folder_is_named(folder):
    for file in sorted((folder / "params").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    with pytest.raises(UserError, match=r"params is damaged.*convert it again"):
        weights.load_weights(folder, np.float32)
