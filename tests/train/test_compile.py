"""The real steps on 8 virtual devices: what one device computes, with the collectives of each mesh and no
others. A process of its own, so that other tests keep one device."""

import collections
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, abstract_variables, init_variables
from r2rec_jax.performance.hlo_collectives import collectives
from r2rec_jax.runtime.mesh import make_mesh, shardings, to_devices
from r2rec_jax.train.compile import jit_step, place_state
from r2rec_jax.train.config import GRPOConfig
from r2rec_jax.train.grpo import GRPOBatch, grpo_update
from r2rec_jax.train.state import TrainState
from r2rec_jax.train.supervised import supervised_update

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_on_eight_devices(run_on_eight_devices):
    run_on_eight_devices()


MESHES = {
    "data": {"data": 8},
    "data-fsdp": {"data": 4, "fsdp": 2},
    "fsdp-tensor": {"data": 1, "fsdp": 4, "tensor": 2},
    "all": {"data": 2, "fsdp": 2, "tensor": 2},
}
LAYERS, D, F, HA, KA, V, RANK = 3, 40, 48, 32, 16, 64, 2
CONFIG = LlamaConfig(V, D, F, LAYERS, 8, 4, 4, 1e-5, 1000.0, None, 64, False)
MODEL = Llama(CONFIG, LoRAConfig(RANK, 4.0), remat="block")
B, G, P, R = 8, 2, 7, 5
SETTINGS = GRPOConfig(beta=0.1, aggregation="token_mean")
# So the state's change is the gradient.
OPTIMIZER = optax.sgd(1.0)


@pytest.fixture(autouse=True, scope="module")
def full_precision():
    with jax.default_matmul_precision("float32"):
        yield


def make_batch(stage: str):
    rng = np.random.default_rng(0)
    N = B * G
    batch = CompletionBatch(
        prompt=rng.integers(0, V, (B, P)).astype(np.int32),
        prompt_length=rng.integers(1, P + 1, B).astype(np.int32),
        response=rng.integers(0, V, (N, R)).astype(np.int32),
        response_mask=(np.arange(R) < rng.integers(1, R + 1, (N, 1))).astype(np.float32),
    )
    if stage == "sft":
        return batch
    return GRPOBatch(batch, rng.normal(size=N).astype(np.float32), -np.ones((N, R), np.float32))


def make_step(stage: str, mesh):
    """(the jitted step, state, frozen, batch on the mesh)"""
    variables = init_variables(MODEL, seed=0)
    rng = np.random.default_rng(1)
    noise = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), variables["lora"])
    variables = jax.device_put(variables | {"lora": noise}, shardings(abstract_variables(MODEL), mesh))
    state = TrainState.create({"lora": variables["lora"]}, OPTIMIZER)
    frozen = {"params": variables["params"]}
    if stage == "sft":

        def step(state, frozen, batch):
            return supervised_update(MODEL, OPTIMIZER, state, frozen, batch)
    else:
        reference = jax.tree.map(lambda x: 0.5 * x, state.trainable)
        frozen = {"base": frozen, "reference": reference}

        def step(state, frozen, batch):
            return grpo_update(MODEL, OPTIMIZER, SETTINGS, 0.9, state, frozen, batch)

    return jit_step(step, state, frozen, mesh), state, frozen, to_devices(make_batch(stage), mesh)


@pytest.fixture(scope="module")
def one_device():
    """stage -> (metrics, trainable) after a step on a mesh of one device."""
    mesh = make_mesh(data=1)
    results = {}
    for stage in ("sft", "grpo"):
        step, state, frozen, batch = make_step(stage, mesh)
        state, metrics = step(state, frozen, batch)
        results[stage] = jax.device_get((metrics, state.trainable))
    return results


def test_a_fresh_state_that_is_placed_compiles_once():
    mesh, traced = make_mesh(data=1), []
    _, state, frozen, batch = make_step("sft", mesh)
    state = place_state(state, mesh)

    def step(state, frozen, batch):
        traced.append(batch)
        return supervised_update(MODEL, OPTIMIZER, state, frozen, batch)

    compiled = jit_step(step, state, frozen, mesh)
    for _ in range(2):
        state, _ = compiled(state, frozen, batch)
    assert len(traced) == 1


@pytest.mark.eight_devices
@pytest.mark.parametrize("stage", ["sft", "grpo"])
@pytest.mark.parametrize("name", MESHES)
def test_step_equals_one_device_and_keeps_nothing_it_was_given(name, stage, one_device):
    step, state, frozen, batch = make_step(stage, make_mesh(**MESHES[name]))
    before = jax.device_get(state.trainable)
    placed = jax.tree.map(lambda x: x.sharding, state.trainable)
    after, metrics = step(state, frozen, batch)

    expected_metrics, expected = one_device[stage]
    assert metrics.keys() == expected_metrics.keys()
    for key, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[key], value, rtol=2e-5, atol=2e-6, err_msg=key)

    def check(path, start, got, wanted):
        gradient = wanted - start
        assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)
        np.testing.assert_allclose(
            np.asarray(got) - start,
            gradient,
            rtol=0,
            atol=3e-5 * np.abs(gradient).max() + 2e-7,
            err_msg=jax.tree_util.keystr(path),
        )

    jax.tree_util.tree_map_with_path(check, before, after.trainable, expected)
    assert jax.tree.map(lambda x: x.sharding, after.trainable) == placed
    # Of a state that nothing has read: numpy's view of a CPU buffer keeps it from being donated.
    later, _ = step(after, frozen, batch)
    step(later, frozen, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(later.trainable))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(frozen))


def in_layers(found):
    """Collectives inside a loop over layers, by that loop: a list of lists."""
    loops = collections.defaultdict(list)
    for one in found:
        if LAYERS in one.loop:
            loops[one.computation].append(one)
    return list(loops.values())


def counts(found):
    return collections.Counter(one.kind for one in found)


def sorted_shapes(found):
    """Of all arrays, without dimensions of 1 and regardless of layout."""
    return sorted(tuple(sorted(size for size in shape if size > 1)) for one in found for shape in one.shapes)


def layer_matrices(tensor: int):
    """Of the seven linear layers: (kernels, adapters a and b), each device's share along `tensor`."""
    widths = [(D, HA // tensor), (D, KA // tensor), (D, KA // tensor), (HA // tensor, D)]
    widths += [(D, F // tensor), (D, F // tensor), (F // tensor, D)]
    adapters = [(rows, RANK) for rows, _ in widths] + [(RANK, columns) for _, columns in widths]
    return widths, adapters


def compiled_sft(name):
    step, state, frozen, batch = make_step("sft", make_mesh(**MESHES[name]))
    return collectives(step.lower(state, frozen, batch).compile().as_text())


@pytest.mark.eight_devices
def test_data_reduces_adapter_gradients_and_nothing_else():
    found = compiled_sft("data")
    assert set(counts(found)) == {"all-reduce"}
    # Prompts and completions are two passes; each reduces a layer's adapter gradients as they are made.
    loops = in_layers(found)
    assert [counts(loop) for loop in loops] == [{"all-reduce": 1}] * 2
    _, adapters = layer_matrices(tensor=1)
    for loop in loops:
        assert sorted_shapes(loop) == sorted(tuple(sorted(shape)) for shape in adapters)
        assert loop[0].devices == 8 and loop[0].bytes == 4 * RANK * sum(map(max, adapters))
    # Loss, tokens, and what the norm of a gradient that every device holds needs: scalars.
    assert all(not any(one.shapes) for one in found if LAYERS not in one.loop)


@pytest.mark.eight_devices
def test_fsdp_gathers_one_layer_at_a_time():
    found = compiled_sft("data-fsdp")
    loops = in_layers(found)
    kernels, adapters = layer_matrices(tensor=1)
    wanted = sorted(tuple(sorted(shape)) for shape in kernels + adapters if D in shape)
    backward = 0
    # Forward and backward over prompts and over completions: in each, every parameter that has a model
    # dimension is gathered once, and no activation is.
    assert len(loops) == 4
    for loop in loops:
        gathers = [one for one in loop if one.kind == "all-gather"]
        assert sorted_shapes(gathers) == wanted
        assert {one.devices for one in gathers} == {2}
        reduced = [one for one in loop if one.kind != "all-gather"]
        backward += bool(reduced)
        assert counts(reduced).keys() <= {"all-reduce", "reduce-scatter"}
        assert set(sorted_shapes(reduced)) <= {tuple(sorted(shape)) for shape in adapters}
    assert backward == 2
    assert not any(LAYERS in shape[:1] and len(shape) == 3 for one in found for shape in one.shapes)


@pytest.mark.eight_devices
def test_tensor_sums_two_outputs_a_layer_and_its_inputs_gradients():
    found = compiled_sft("fsdp-tensor")
    loops = in_layers(found)
    kernels, adapters = layer_matrices(tensor=2)
    wanted = sorted(tuple(sorted(shape)) for shape in kernels + adapters if D in shape)
    assert len(loops) == 4
    for loop in loops:
        assert counts(loop).keys() == {"all-gather", "all-reduce"}
        assert sorted_shapes(one for one in loop if one.kind == "all-gather") == wanted
        assert {one.devices for one in loop if one.kind == "all-gather"} == {4}
    forward = [
        [one for one in loop if one.kind == "all-reduce" and one.devices == 2]
        for loop in loops
        if "transpose" not in loop[0].source
    ]
    # o_proj and down_proj: the output's partial sums, and with them those of the adapter's x A.
    for reduced, tokens in zip(forward, sorted((B // 4 * P, B * G // 4 * R)), strict=True):
        assert len(reduced) == 2
        assert all(set(one.shapes) == {(tokens, D), (tokens, RANK)} for one in reduced)

    # Neither logits nor the head are collected: the vocabulary stays split.
    assert not any(V in shape for one in found for shape in one.shapes)
