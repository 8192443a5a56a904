"""What a step changes, and reading a trained adapter back from a run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train.state import CHECKPOINTS, TrainState, restore_trainable

OPTIMIZER = optax.adam(0.1)
TRAINABLE = {"lora": {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}}


def zeros():
    return jax.tree.map(jnp.zeros_like, TRAINABLE)


@pytest.fixture
def workdir(tmp_path):
    """A run of two checkpoints; the adapter of step 4 is twice that of step 2."""
    with Checkpointer(tmp_path / CHECKPOINTS) as checkpoints:
        for step, factor in ((2, 1.0), (4, 2.0)):
            trainable = jax.tree.map(lambda x, factor=factor: factor * x, TRAINABLE)
            checkpoints.save(step, TrainState.create(trainable, OPTIMIZER), {})
    return tmp_path


def test_gradients_move_the_trainable_and_count_a_step():
    sgd = optax.sgd(0.5)
    state = TrainState.create(TRAINABLE, sgd)
    assert int(state.step) == 0 and state.step.dtype == jnp.int32
    after = state.apply_gradients(jax.tree.map(jnp.ones_like, TRAINABLE), sgd)
    assert int(after.step) == 1
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b - 0.5), after.trainable, TRAINABLE)


def test_the_newest_adapter_is_restored(workdir):
    restored = restore_trainable(workdir, zeros(), OPTIMIZER)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 2 * b), restored, TRAINABLE)


def test_best_is_what_the_run_says(workdir):
    best = [restore_trainable(workdir, zeros(), OPTIMIZER, "best")["lora"]["b"].tolist()]
    with Checkpointer(workdir / CHECKPOINTS) as checkpoints:
        state = TrainState.create(zeros(), OPTIMIZER)
        checkpoints.save(6, state, {"watch": {"best_step": 2}}, best=2)
    best.append(restore_trainable(workdir, zeros(), OPTIMIZER, "best")["lora"]["b"].tolist())
    assert best == [[2.0] * 3, [1.0] * 3]  # of a run without evaluations: the latest
    with pytest.raises(UserError, match=r"'first'.*latest, best"):
        restore_trainable(workdir, zeros(), OPTIMIZER, "first")


def test_the_optimizers_settings_need_not_be_the_runs_own(workdir):
    restored = restore_trainable(str(workdir), zeros(), optax.adam(0.7, b1=0.5))
    assert restored["lora"]["b"].tolist() == [2.0] * 3


def test_a_workdir_without_checkpoints_is_named(tmp_path):
    with pytest.raises(UserError, match=f"no checkpoints in {tmp_path}.*train"):
        restore_trainable(tmp_path, zeros(), OPTIMIZER)
    assert not any(tmp_path.iterdir())
    (tmp_path / CHECKPOINTS).mkdir()
    with pytest.raises(UserError, match="no finished checkpoint"):
        restore_trainable(tmp_path, zeros(), OPTIMIZER)


@pytest.mark.parametrize(
    "like",
    [
        {"lora": {"a": jnp.zeros((2, 4)), "b": jnp.zeros(3)}},
        {"lora": {"a": jnp.zeros((2, 3))}},
        {"params": {"a": jnp.zeros((2, 3)), "b": jnp.zeros(3)}},
    ],
    ids=["shape", "leaf", "name"],
)
def test_the_adapter_of_another_model_is_refused(workdir, like):
    with pytest.raises(UserError, match="another config"):
        restore_trainable(workdir, like, OPTIMIZER)


def config(**lora):
    return ConfigDict(
        {"model": {"folder": "m"}, "lora": {"rank": 3, "alpha": 6.0, "use_rslora": False} | lora}
    )


@pytest.fixture
def trained(tmp_path):
    """A run of a config, with its one checkpoint."""
    with Checkpointer(tmp_path / CHECKPOINTS) as checkpoints:
        checkpoints.save(2, TrainState.create(TRAINABLE, OPTIMIZER), {"config": config().to_dict()})
    return tmp_path


def test_another_adapter_is_told_field_by_field(trained):
    restore_trainable(trained, zeros(), OPTIMIZER, sections=config())
    like = {"lora": {"a": jnp.zeros((4, 3)), "b": jnp.zeros(3)}}
    with pytest.raises(UserError) as error:
        restore_trainable(trained, like, OPTIMIZER, sections=config(rank=4, alpha=8.0))
    said = "is of another config: lora.alpha (6.0 there, 8.0 here), lora.rank (3 there, 4 here); use"
    assert said in str(error.value)


def test_an_adapter_of_another_scale_is_not_read_as_if_it_were_ours(trained):
    for changes, told in (
        ({"alpha": 8.0}, "lora.alpha (6.0 there, 8.0 here)"),
        ({"use_rslora": True}, "true"),
    ):
        with pytest.raises(UserError, match="another scale") as error:
            restore_trainable(trained, zeros(), OPTIMIZER, sections=config(**changes))
        assert told in str(error.value)


def test_a_damaged_adapter_is_no_older_one(workdir):
    (workdir / CHECKPOINTS / "4" / "checksum" / "metadata").unlink()
    with pytest.raises(UserError, match=r"4 is damaged .*to resume from the previous one"):
        restore_trainable(workdir, zeros(), OPTIMIZER)
    assert sorted(path.name for path in (workdir / CHECKPOINTS).iterdir()) == ["2", "4"]
