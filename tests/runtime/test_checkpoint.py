import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh


def make_state(seed):
    params = {
        "q": {
            "a": jax.random.normal(jax.random.key(seed), (3, 4)),
            "b": jnp.ones((4, 2), jnp.bfloat16),
        }
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.constant_schedule(1e-3)))
    return {
        "params": params,
        "optimizer": optimizer.init(params),
        "rng": jax.random.key_data(jax.random.key(seed)),
        "step": jnp.int32(seed),
    }  # fmt: skip


def assert_equal(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == other.dtype
        np.testing.assert_array_equal(leaf, other)


def test_round_trip_in_a_new_process_of_the_run(tmp_path):
    data = {"iterator": {"next_index": 12, "seed": 2**40}, "config": {"lr": 1e-3, "shape": [1, 2]}}
    with Checkpointer(tmp_path / "run") as checkpointer:
        assert checkpointer.latest_step() is None
        checkpointer.save(3, make_state(3), data)
    with Checkpointer(tmp_path / "run") as checkpointer:
        assert checkpointer.latest_step() == 3
        state, restored_data = checkpointer.restore(3, jax.eval_shape(make_state, 0))
    assert_equal(state, make_state(3))
    assert restored_data == data


def test_the_last_two_are_kept_and_a_second_save_of_a_step_changes_nothing(tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in (1, 2, 5):
            checkpointer.save(step, make_state(step), {"step": step})
        checkpointer.save(5, make_state(6), {"step": 6})
        checkpointer.wait()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5"]
        for step in (2, 5):
            state, data = checkpointer.restore(step, make_state(0))
            assert_equal(state, make_state(step))
            assert data == {"step": step}


def test_the_best_is_kept_besides_and_its_json_read_alone(tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step, best in ((1, 1), (2, 1), (5, 5), (6, 5), (7, 5), (8, 5)):
            checkpointer.save(step, make_state(step), {"step": step}, best=best)
        checkpointer.wait()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "7", "8"]
        assert checkpointer.data(5) == {"step": 5}
        with pytest.raises(UserError, match=f"no checkpoint at {tmp_path}/6"):
            checkpointer.data(6)
    with Checkpointer(tmp_path, keep=2) as checkpointer:  # a run that goes on
        checkpointer.save(9, make_state(9), {}, best=5)
        checkpointer.wait()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "8", "9"]


def test_restored_onto_the_sharding_asked_for(tmp_path):
    sharding = NamedSharding(make_mesh(), PartitionSpec("data"))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"w": jnp.arange(8.0)}, {})
        wanted = {"w": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding)}
        state, _ = checkpointer.restore(1, wanted)
    assert state["w"].sharding == sharding
    np.testing.assert_array_equal(state["w"], np.arange(8.0))


def test_buffers_may_be_donated_while_saving_and_after_restoring(tmp_path):
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    with Checkpointer(tmp_path) as checkpointer:
        value = add(jnp.zeros(1_000_000))
        checkpointer.save(1, {"w": value}, {})
        for _ in range(20):
            value = add(value)
        checkpointer.wait()
        w = checkpointer.restore(1, {"w": value})[0]["w"]
    np.testing.assert_array_equal(w, np.ones(1_000_000))
    address = w.unsafe_buffer_pointer()
    assert add(w).unsafe_buffer_pointer() == address  # in place: a buffer that XLA owns


def test_a_missing_step(tmp_path):
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(UserError, match=f"no checkpoint at {tmp_path}/4"),
    ):
        checkpointer.restore(4, make_state(0))


@pytest.mark.parametrize(
    "wanted",
    [{"w": jnp.zeros(9)}, {"w": jnp.zeros(8), "more": jnp.zeros(1)}, {"other": jnp.zeros(8)}, {}],
)
def test_the_state_of_another_model(tmp_path, wanted):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"w": jnp.arange(8.0)}, {})
        checkpointer.wait()
        with pytest.raises(UserError, match="is of another config: "):
            checkpointer.restore(1, wanted)


@pytest.mark.slow
def test_on_eight_devices(run_on_eight_devices):
    run_on_eight_devices()


@pytest.mark.eight_devices
@pytest.mark.parametrize("sizes", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "fsdp": 8}])
def test_a_state_goes_to_another_mesh(tmp_path, sizes):
    """And back again, and to one device; the checksum does not depend on who holds what."""
    values = {"w": np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32), "step": np.int32(5)}

    def placed(mesh):
        specs = {"w": PartitionSpec("fsdp", "tensor"), "step": PartitionSpec()}
        return {name: jax.device_put(values[name], NamedSharding(mesh, specs[name])) for name in values}

    first, other = placed(make_mesh(data=2, fsdp=4, tensor=1)), placed(make_mesh(**sizes))
    one = {name: jax.device_put(value, jax.devices()[0]) for name, value in values.items()}
    with Checkpointer(tmp_path, keep=9) as checkpointer:
        checkpointer.save(1, first, {})
        for step, wanted in enumerate((other, one, first), start=1):
            state, _ = checkpointer.restore(step, wanted)
            assert {name: leaf.sharding for name, leaf in state.items()} == {
                name: leaf.sharding for name, leaf in wanted.items()
            }
            assert_equal(state, values)
            checkpointer.save(step + 1, state, {})


@pytest.mark.parametrize("left", ["all", "a part", "an empty folder"])
def test_an_old_step_that_a_killed_run_was_deleting_goes_on_resuming(tmp_path, left):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        checkpointer.save(1, make_state(1), {})
        checkpointer.wait()
        shutil.copytree(tmp_path / "1", tmp_path / "kept")
        for step in (2, 5, 6):
            checkpointer.save(step, make_state(step), {}, best=2)
    (tmp_path / "kept").rename(tmp_path / "1")
    files = sorted(path for path in (tmp_path / "1").rglob("*") if path.is_file())
    for path in {"all": [], "a part": files[::2], "an empty folder": files}[left]:
        path.unlink()
    if left == "an empty folder":
        for path in sorted((tmp_path / "1").rglob("*"), reverse=True):
            path.rmdir()
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        assert checkpointer.latest_step() == 6
        checkpointer.clear_old(best=2)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5", "6"]
        assert_equal(checkpointer.restore(2, make_state(0))[0], make_state(2))
