"""The model over 8 virtual devices equals the model on one; a process of its own."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from r2rec_jax.model import huggingface
from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, abstract_variables, init_variables
from r2rec_jax.runtime import mesh as meshes

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_on_eight_devices(run_on_eight_devices):
    run_on_eight_devices()


@pytest.fixture(params=[None, (7, 3)], ids=["words", "items"])
def model(config, request):
    # The mesh divides the vocabulary too.
    config = dataclasses.replace(config, vocab_size=54)
    return Llama(config, LoRAConfig(rank=2, alpha=4.0), items=request.param)


@pytest.mark.eight_devices
def test_loss_and_gradients_equal_one_device(model, randomize, assert_close):
    rng = np.random.default_rng(0)
    B, G, P, R = 4, 2, 9, 5
    batch = CompletionBatch(
        prompt=rng.integers(0, 54 + (model.items or (0,))[0], (B, P)).astype(np.int32),
        prompt_length=np.array([9, 4, 1, 6], np.int32),
        response=rng.integers(0, 54, (B * G, R)).astype(np.int32),
        response_mask=(np.arange(R) < rng.integers(1, R + 1, (B * G, 1))).astype(np.float32),
    )
    variables = init_variables(model, seed=0)
    variables = jax.device_get(variables | {"lora": randomize(variables["lora"])})

    def loss(variables, batch):
        logprobs, _ = completion_logprobs(model, variables, batch)
        return -jnp.sum(logprobs * batch.response_mask) / jnp.sum(batch.response_mask)

    expected = jax.jit(jax.value_and_grad(loss))(variables, batch)

    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    placed = meshes.shardings(abstract_variables(model), mesh)
    kernel = placed["params"]["layers"]["mlp"]["up_proj"]["kernel"]
    assert kernel.shard_shape((2, 20, 28)) == (2, 10, 14)
    sharded = jax.jit(
        jax.value_and_grad(loss),
        in_shardings=(placed, meshes.batch_sharding(mesh)),
        out_shardings=(meshes.replicated(mesh), placed),
    )
    got = sharded(jax.device_put(variables, placed), batch)
    assert got[1]["params"]["layers"]["mlp"]["up_proj"]["kernel"].sharding == kernel
    assert_close(got, expected)


@pytest.mark.eight_devices
def test_weights_are_loaded_where_they_belong(model, tmp_path):
    params = init_variables(model, seed=0)["params"]
    huggingface.save_params(tmp_path / "model", model.config, params, dtype=np.float32)
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    placed = meshes.shardings(abstract_variables(model), mesh)["params"]
    _, loaded = huggingface.load_params(tmp_path / "model", np.float32, placed)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    for path, leaf in traverse_util.flatten_dict(loaded).items():
        assert leaf.sharding == traverse_util.flatten_dict(placed)[path]
