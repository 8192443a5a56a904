"""Placement on 8 virtual devices; a process of its own, so that other tests keep one device."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from r2rec_jax.runtime import mesh as meshes
from r2rec_jax.runtime.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_on_eight_devices(run_on_eight_devices):
    run_on_eight_devices()


def parameter(shape, names):
    """An abstract parameter boxed with its logical axes, as from jax.eval_shape of an init."""
    init = nn.with_logical_partitioning(nn.initializers.zeros, names)
    return jax.eval_shape(lambda: init(jax.random.key(0), shape, jnp.float32))


@pytest.mark.eight_devices
@pytest.mark.parametrize(
    ("sizes", "shape"),
    [({}, (8, 1, 1)), ({"fsdp": 2, "tensor": 2}, (2, 2, 2)), ({"data": 1, "tensor": 4}, (1, 1, 4))],
)
def test_mesh_shapes(sizes, shape):
    mesh = meshes.make_mesh(**sizes)
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "fsdp", "tensor"), shape, strict=True))


@pytest.mark.eight_devices
def test_parameters_and_batch_are_split_by_the_table():
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    tree = {
        "q": parameter((3, 8, 4), ("layers", "embed", "heads")),
        "b": parameter((2, 4), ("lora", "embed")),
        "scale": jax.ShapeDtypeStruct((5,), jnp.float32),
    }
    placed = meshes.shardings(tree, mesh)
    assert {name: sharding.spec for name, sharding in placed.items()} == {
        "q": P(None, "fsdp", "tensor"),
        "b": P(None, "fsdp"),
        "scale": P(),
    }
    q = jax.device_put(jnp.ones((3, 8, 4)), placed["q"])
    assert {shard.data.shape for shard in q.addressable_shards} == {(3, 4, 2)}
    batch = jax.device_put(jnp.arange(8), meshes.batch_sharding(mesh))
    assert sorted({tuple(s.data.tolist()) for s in batch.addressable_shards}) == [
        (0, 1),
        (2, 3),
        (4, 5),
        (6, 7),
    ]
    assert jax.device_put(jnp.arange(8), meshes.replicated(mesh)).is_fully_replicated


@pytest.mark.eight_devices
def test_sizes_that_do_not_fit():
    with pytest.raises(UserError, match="does not divide the 8 devices"):
        meshes.make_mesh(tensor=3)
    with pytest.raises(UserError, match="needs 16 devices and there are 8"):
        meshes.make_mesh(data=4, fsdp=4)
    with pytest.raises(UserError, match="sizes start at 1"):
        meshes.make_mesh(fsdp=0)
    with pytest.raises(UserError, match=r"\['q'\] of shape \(6,\) cannot be split"):
        meshes.shardings({"q": parameter((6,), ("heads",))}, meshes.make_mesh(tensor=4))


@pytest.mark.eight_devices
def test_activations_are_placed_and_parameters_gathered_on_the_mesh_at_work():
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    x = jnp.ones((8, 4))

    def place(x):
        return meshes.constrain(x, "batch", "mlp"), meshes.gathered(x, "embed", "mlp")

    def place_on_mesh(x):
        with meshes.working_on(mesh):
            return place(x)

    activation, parameter = jax.jit(place_on_mesh)(x)
    assert activation.sharding.shard_shape(x.shape) == (2, 2)
    assert parameter.sharding.shard_shape(x.shape) == (8, 2)
    assert all(len(out.devices()) == 1 for out in jax.jit(place)(x))


@pytest.mark.eight_devices
def test_each_device_runs_over_its_own_rows():
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    rows, weights = jnp.arange(24.0).reshape(8, 3), jnp.arange(6.0).reshape(3, 2)
    seen = []

    def function(rows, weights):
        seen.append(rows.shape)
        return rows @ weights, rows.sum(axis=1)

    def loss(rows, weights):
        with meshes.working_on(mesh):
            product, sums = meshes.by_rows(function, (True, False))(rows, weights)
        return jnp.sum(product**2) + jnp.sum(sums)

    got = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(rows, weights)
    assert set(seen) == {(2, 3)}
    assert meshes.by_rows(function, (True, False)) is function
    product = rows @ weights
    assert got[0] == pytest.approx(float(jnp.sum(product**2) + rows.sum()))
    np.testing.assert_allclose(got[1][0], 2 * product @ weights.T + 1)
    np.testing.assert_allclose(got[1][1], 2 * rows.T @ product)


def test_an_axis_without_a_rule_is_refused():
    with pytest.raises(ValueError, match=r"no rule for logical axes \{'hedas'\}"):
        meshes.shardings({"q": parameter((6,), ("hedas",))}, meshes.make_mesh())
    with pytest.raises(ValueError, match=r"no rule for logical axes \{'hedas'\}"):
        meshes.constrain(jnp.ones(6), "hedas")
