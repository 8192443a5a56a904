"""Trains the neural baselines with the loop of train/, and selects the best step on held-out users."""

import io
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from r2rec_jax.baselines.config import NeuralConfig
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.metrics.ranking_metrics import ranks_from_scores, summarise
from r2rec_jax.pipeline.batches import Batches
from r2rec_jax.runtime.config import MeshConfig
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.fields import to_config_dict, values
from r2rec_jax.runtime.mesh import make_mesh, to_devices
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train import loop
from r2rec_jax.train.compile import jit_step, place_state
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import TrainState, restore_trainable

ITEMS = "items.npy"  # float32[n_items, D], the trained item embeddings


def fit_score(
    system,
    dataset: Dataset,
    users: np.ndarray,
    config: NeuralConfig,
    workdir: Path,
    *,
    seed: int,
    mesh: MeshConfig,
    trace: str = "",
) -> np.ndarray:
    """Trains `system` (a NextItem or a Propagation) in `workdir` and scores the candidates of `users`.

    Every `config.train.evaluate_every` steps, `system` ranks for all users of the split outside the group
    "evaluation". The parameters of the step with the best `config.train.best_metric` are used. Training
    resumes from checkpoints in `workdir`. Writes ITEMS.

    Args:
        config: the system's section. seed: seed of parameters and dropout. trace: the steps to trace, see
            `profile.steps`.

    Returns:
        float64[len(users), C].

    Raises:
        UserError: the split has no users outside the group "evaluation".
    """
    fit = _fit(system, dataset, held_out(dataset), config, workdir, seed, mesh, trace)
    params = fit["params"]
    table = io.BytesIO()
    np.save(table, np.asarray(params["item_embedding"], np.float32), allow_pickle=False)
    write_atomic(workdir / ITEMS, table.getvalue())
    return system.scores(params, users)


def held_out(dataset: Dataset) -> np.ndarray:
    """The users of the split outside the group "evaluation". Raises UserError if there are none."""
    groups = dataset.split.users
    users = np.concatenate([group for name, group in groups.items() if name != "evaluation"])
    if not len(users):
        raise UserError(
            "baselines: early stopping needs users who are not evaluated; increase another data.sizes"
        )
    return users


def _fit(
    system,
    dataset: Dataset,
    users: np.ndarray,
    config: NeuralConfig,
    workdir: Path,
    seed: int,
    axes: MeshConfig,
    trace: str,
) -> dict:
    """Trains, and returns the trainable tree of the step that ranks `users` best."""
    candidates, truth = dataset.split.candidates[users], dataset.split.truth[users]
    mesh = make_mesh(**values(axes))
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    params = jax.jit(system.init)(jax.random.key(seed))
    state = place_state(TrainState.create({"params": params}, optimizer), mesh)
    frozen = place_state(system.frozen, mesh)

    def update(state, frozen, batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss(trainable):
            return system.loss(trainable["params"], frozen, batch, key)

        value, grads = jax.value_and_grad(loss)(state.trainable)
        finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(grads))
        metrics = {"train/loss": value, "train/skipped_count": 1.0 - finite}
        return state.apply_gradients(grads, optimizer, finite), metrics

    step = jit_step(update, state, frozen, mesh)
    source = grain.MapDataset.source(system.batches)
    batches = Batches(source, workers=0, put=lambda batch: to_devices(batch, mesh))
    phases = Phases()

    def advance(state, batch, _):
        with phases("update"):
            return *step(state, frozen, batch), batch

    def evaluate(state):
        scores = system.scores(state.trainable["params"], users)
        ranks = ranks_from_scores(scores, candidates, truth)
        return {f"validation/{name}": value for name, value in summarise(ranks).items()}

    state = loop.run(
        config.train,
        workdir,
        state,
        batches,
        advance,
        phases,
        evaluate,
        stage=workdir.name,
        record=to_config_dict(config).to_dict(),
        trace=trace,
    )
    return restore_trainable(workdir, state.trainable, optimizer, "best")
