"""Policies of a config: where the adapter and the base come from, and what contradicts itself."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from configs.base import base
from r2rec_jax.model import huggingface, peft
from r2rec_jax.model.config import LINEAR_LAYERS
from r2rec_jax.model.policy import load_policy
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The model that the golden PEFT adapters were put on."""
    folder = tmp_path_factory.mktemp("model")
    arrays = np.load(GOLDEN / "llama_scaled.npz")
    (folder / "config.json").write_text(str(arrays["config"]))
    names = [name for name in arrays.files if name.startswith("weight/")]
    weights = {name.removeprefix("weight/"): arrays[name].astype(np.float32) for name in names}
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def config(folder):
    config = base()
    config.model.update({"folder": str(folder), "dtype": "float32"})
    return config


def load(config):
    return load_policy(config.model, config.lora, make_mesh(data=1), seed=0)


def test_training_starts_from_a_peft_adapter(config):
    config.lora.update({"folder": str(GOLDEN / "peft_rslora"), "rank": 4, "alpha": 6.0, "use_rslora": True})
    config.lora.targets = ("down_proj", "q_proj", "v_proj")
    policy = load(config)
    _, wanted = peft.load_adapter(GOLDEN / "peft_rslora", policy.model.config)
    jax.tree.map(np.testing.assert_array_equal, policy.trainable, {"lora": wanted})
    # Trained with 0.05, but how to go on is for the config to say.
    assert policy.model.lora.dropout == 0.0
    assert policy.model.lora.scale == 6.0 / 4**0.5


def test_an_adapter_that_is_not_as_the_config_says_is_refused_with_what_to_add(config, tmp_path):
    config.lora.folder = str(shutil.copytree(GOLDEN / "peft_rslora", tmp_path / "adapter"))
    with pytest.raises(UserError) as refusal:
        load(config)
    message = str(refusal.value)
    for flag in ("rank=4", "alpha=6.0", "use_rslora=True", "targets=('q_proj', 'v_proj', 'down_proj')"):
        assert f'"--config.lora.{flag}"' in message
    assert "\n" not in message and "dropout" not in message
    config.lora.update({"folder": str(GOLDEN / "peft_all_linear"), "alpha": 8.0})
    with pytest.raises(UserError, match=r'add "--config\.lora\.rank=2"$'):
        load(config)


def test_an_int8_base_is_loaded_tensor_by_tensor(config, folder):
    config.model.quantize = "int8"
    config.lora.rank = 2
    policy = load(config)
    assert policy.model.int8 and set(policy.trainable) == {"lora"}
    stored = traverse_util.flatten_dict(policy.frozen["params"])
    plain = traverse_util.flatten_dict(huggingface.load_params(folder, np.float32)[1])
    for path, leaf in plain.items():
        if path[-1] != "kernel":
            np.testing.assert_array_equal(stored.pop(path), leaf)
            continue
        kernel, scale = stored.pop(path), np.asarray(stored.pop((*path[:-1], "scale")))
        assert path[-2] in LINEAR_LAYERS and kernel.dtype == np.int8 and scale.dtype == np.float32
        error = np.abs(np.asarray(kernel, np.float64) * scale[:, None, :] - leaf)
        assert np.all(error <= scale[:, None, :] * 0.5001)
    assert not stored


def test_what_cannot_be_quantised_is_refused(config):
    config.model.quantize = "int4"
    with pytest.raises(UserError, match=r"model\.quantize 'int4'"):
        load(config)
    config.model.update({"quantize": "int8", "folder": ""})
    config.model.architecture = base().data  # any section: it is not looked at
    with pytest.raises(UserError, match="frozen base"):
        load(config)
