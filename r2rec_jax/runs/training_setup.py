"""Shared by the training stages: checks, claiming the workdir, and starting the loop."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from r2rec_jax.model.flops import Mfu
from r2rec_jax.model.policy import Policy
from r2rec_jax.runtime.checksum import of_arrays
from r2rec_jax.runtime.distributed import on_first
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metric_writer import StepLog
from r2rec_jax.runtime.workdir import claim, require_same_inputs
from r2rec_jax.train import loop
from r2rec_jax.train.micro_batches import check_parts
from r2rec_jax.train.state import TrainState


def claim_run(
    config: ConfigDict, workdir: Path, overwrite: bool, adapters: dict[str, dict] | None = None
) -> None:
    """Claims the workdir; a finished run continues if `train.steps` is raised.

    adapters: the adapters that the run starts from, by config field. Raises UserError if the run in the
    workdir started from other adapters.
    """
    on_first(lambda: claim(workdir, config, overwrite, grows="train.steps"))
    if adapters is not None:
        inputs = {name: of_arrays(adapter) for name, adapter in adapters.items()}
        on_first(lambda: require_same_inputs(workdir, inputs))


def check_size(config: ConfigDict, count: int, what: str) -> None:
    """Raises UserError if a batch is larger than the number of examples."""
    if count < config.train.batch_size:
        size = config.train.batch_size
        raise UserError(f"train.batch_size={size} is more than the {count} {what}: lower it")


def micro_batches(config: ConfigDict, mesh: Mesh) -> int:
    """`train.micro_batches`. Raises UserError unless they divide the batch."""
    check_parts(config.train.batch_size, config.train.micro_batches, mesh)
    return config.train.micro_batches


def model_flops(config: ConfigDict, policy: Policy, mesh: Mesh) -> Mfu:
    """The MFU meter of the stage."""
    reference = config.stage == "grpo" and config.grpo.beta > 0
    frozen = "lora" in policy.trainable
    return Mfu(policy.model.config, mesh, dtype=config.model.dtype, frozen=frozen, reference=reference)


def start(
    drive: loop.Drive,
    config: ConfigDict,
    workdir: Path,
    state: TrainState,
    examples,
    step,
    evaluate: Callable | None = None,
    logs: Sequence[StepLog] = (),
) -> TrainState:
    """Calls `drive` with `step`, its phases, and the config sections that the loop needs."""
    return drive(
        config.train,
        workdir,
        state,
        examples,
        step,
        step.phases,
        evaluate,
        logs,
        stage=config.stage,
        record=config.to_dict(),
        trace=config.profile.steps,
    )
