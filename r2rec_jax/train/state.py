"""The training state, and reading it from the checkpoints of another run."""

from collections.abc import Mapping
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import optax
from absl import logging
from ml_collections import ConfigDict

from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.config_diff import drift, first
from r2rec_jax.runtime.distributed import gather
from r2rec_jax.runtime.errors import UserError

CHECKPOINTS = "checkpoints"  # in a training run's workdir
WHICH = ("latest", "best")
SECTIONS = ("model", "lora")  # sections of a config that the trained leaves depend on
SCALE = ("alpha", "use_rslora")  # fields of `lora` that no leaf shows


@flax.struct.dataclass
class TrainState:
    """Everything that is differentiated, optimised and checkpointed.

    `trainable`: {'lora': ...} for an adapter over a frozen base, {'params': ...} for a full model.
    `step`: int32 [], updates done. Randomness is a function of the seed and the step, so there is
    no key to keep.
    """

    step: jax.Array
    trainable: dict
    opt_state: optax.OptState

    @classmethod
    def create(cls, trainable: dict, optimizer: optax.GradientTransformation) -> "TrainState":
        return cls(jnp.zeros((), jnp.int32), trainable, optimizer.init(trainable))

    def apply_gradients(
        self, grads: dict, optimizer: optax.GradientTransformation, finite: bool | jax.Array = True
    ) -> "TrainState":
        """The state after an update; the unchanged state where `finite` is false, as a NaN would persist."""
        updates, opt_state = optimizer.update(grads, self.opt_state, self.trainable)
        updated = TrainState(self.step + 1, optax.apply_updates(self.trainable, updates), opt_state)
        return jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, self)


def restore_trainable(
    workdir: str | Path,
    like: dict,
    optimizer: optax.GradientTransformation,
    which: str = "latest",
    sections: Mapping[str, ConfigDict] | None = None,
) -> dict:
    """The `trainable` of a training run, placed as `like` is.

    `optimizer` gives the structure of the checkpoint; its settings may differ from the run's. `which`
    is "latest", or "best": that of the run's best evaluation, the latest of a run that had none. `sections`
    are the reader's `model` and `lora`, which have to be those of the run.

    Raises UserError when `workdir` holds no checkpoint, a damaged one, or one of another model or adapter:
    then it names the fields in which the configs differ.
    """
    if which not in WHICH:
        raise UserError(f"restore {which!r} is unknown: use one of {', '.join(WHICH)}")
    folder = Path(workdir) / CHECKPOINTS
    if not folder.is_dir():
        raise UserError(f"no checkpoints in {workdir}: train into that --workdir first")
    with Checkpointer(folder, read_only=True) as checkpoints:  # the run may be at work
        step = gather(checkpoints.latest_step())[0]  # one that is looked for later may find a newer one
        if step is None:
            raise UserError(f"no finished checkpoint in {folder}: train into that --workdir first")
        if which == "best":
            best = checkpoints.data(step).get("watch", {}).get("best_step")
            step = step if best is None else best
        abstract = jax.eval_shape(lambda trainable: TrainState.create(trainable, optimizer), like)
        here = {name: sections[name].to_dict() for name in SECTIONS} if sections else {}
        state, data = checkpoints.restore(step, abstract.replace(trainable=like), here)
        if sections:
            _check_scale(folder / str(step), data["config"], here)
        logging.info("%s: step %d, the %s", workdir, step, which)
        return state.trainable


def _check_scale(where: Path, *configs: dict) -> None:
    """Raises UserError when the adapter of the first config is not that of the second by what scales it."""
    differing = drift(*({"lora": {name: config["lora"][name] for name in SCALE}} for config in configs))
    if differing:
        raise UserError(
            f"checkpoint {where} holds an adapter of another scale: {first(differing)}; use what it was "
            "trained with"
        )
