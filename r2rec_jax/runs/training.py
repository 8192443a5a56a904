"""Sets up each training stage from its config and starts the training loop."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from r2rec_jax.cli.required_inputs import require
from r2rec_jax.data import prepared
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.model.policy import Policy, load_policy
from r2rec_jax.pipeline.batches import batches
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rollout.completions import check_prompts
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.runs.supervised_stages import llara, pretrain, sft, tallrec
from r2rec_jax.runs.training_setup import check_size, claim_run, micro_batches, model_flops, start
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train import loop
from r2rec_jax.train.compile import place_state
from r2rec_jax.train.config import GRPOConfig, RewardConfig
from r2rec_jax.train.grpo import GRPOStep, compile_logprobs, compile_update
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.reward_runner import RewardRunner
from r2rec_jax.train.sample_log import SampleLog
from r2rec_jax.train.state import TrainState, restore_trainable
from r2rec_jax.train.validation import Validation


def main(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive = loop.run) -> None:
    """Sets up the stage and passes it to `drive`, the training loop or launch.profile's capture."""
    stages = {"pretrain": pretrain, "sft": sft, "grpo": grpo, "tallrec": tallrec, "llara": llara}
    if config.stage not in stages:
        raise UserError(f"stage {config.stage!r} is unknown: use one of {', '.join(stages)}")
    stages[config.stage](config, workdir, overwrite, drive)


def grpo(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """GRPO continues training the SFT adapter; that adapter, frozen, is the reference."""
    require(config, "model", "data", adapters={config.train.init: "sft"} if config.train.init else {})
    chat, dataset = Chat(config.model.folder), prepared.load(config.data.folder)
    mesh, c = make_mesh(**config.mesh), GRPOConfig.read(config.grpo)
    policy = load_policy(config.model, config.lora, mesh, config.seed)
    optimizer = make_optimizer(config.optimizer, config.train.steps * c.updates_per_rollout)
    reference, parts = _reference(config, policy, optimizer), micro_batches(config, mesh)
    prompt, reward = PromptConfig.read(config.prompt), RewardConfig.read(config.reward)
    rewards = RewardRunner(chat, prompt, reward, config.data.folder)
    sampling = RolloutConfig.read(config.rollout)
    prompts, held_out = (_prompts(config, prompt, dataset, chat, group) for group in ("grpo", "validation"))
    _check_users(config, prompts, held_out)
    examples = batches(
        prompts,
        batch_size=config.train.batch_size,
        seed=config.seed,
        shuffle=True,
        to_batch=list,
        lengths=prompts.widths() if len(prompt.buckets) > 1 else None,
        workers=config.data.workers,
    )
    claim_run(config, workdir, overwrite, {"train.init": reference} if config.train.init else {})
    # A copy, because every step donates the state, and the reference must stay alive.
    state = place_state(TrainState.create(jax.tree.map(lambda x: x.copy(), reference), optimizer), mesh)
    frozen = {"base": policy.frozen, "reference": reference}
    samples = SampleLog(workdir, dataset.catalog.user_ids)
    step = GRPOStep(
        policy=policy,
        update_frozen=frozen,
        engine=Engine(policy.model, chat.end, sampling, mesh, chat.text, slots=c.slots),
        rewards=rewards,
        update=compile_update(policy.model, optimizer, c, sampling.temperature, state, frozen, mesh, parts),
        old_logprobs=compile_logprobs(policy.model, sampling.temperature, parts),
        chat=chat,
        prompt=prompt,
        grpo=c,
        mesh=mesh,
        mfu=model_flops(config, policy, mesh),
        phases=Phases(),
        record=samples.record,
        seed=config.seed,
    )
    # Validation decodes one completion per user, with other shapes and so other programs than training.
    slots = config.evaluate.batch_size
    validator = Engine(policy.model, chat.end, sampling, mesh, chat.text, slots=slots)
    validation = Validation(policy, validator, held_out, rewards, config.seed) if len(held_out) else None
    with rewards:
        start(drive, config, workdir, state, examples, step, validation, logs=(samples,))


def _reference(config: ConfigDict, policy: Policy, optimizer) -> dict:
    """The initial trainable leaves: those of `train.init`, or the policy's own."""
    if not config.train.init:
        return policy.trainable
    sections = {"model": config.model, "lora": config.lora}
    return restore_trainable(config.train.init, policy.trainable, optimizer, config.restore, sections)


def _prompts(
    config: ConfigDict, prompt: PromptConfig, dataset: Dataset, chat: Chat, group: str
) -> RankingPrompts:
    """The ranking prompts of the users in a group of the split."""
    users, before = dataset.split.users[group], config.data.before_target_time
    return RankingPrompts(dataset, users, chat, prompt, config.seed, before_target_time=before)


def _check_users(config: ConfigDict, prompts: RankingPrompts, held_out: RankingPrompts) -> None:
    """Raises UserError for too few users, or users whose prompts or answers do not fit."""
    check_size(config, len(prompts), f"GRPO users of {config.data.folder}")
    if config.train.best_metric and not len(held_out):
        raise UserError(
            f"{config.data.folder} has no validation users, but train.best_metric="
            f"{config.train.best_metric} is measured on them: prepare the data with data.sizes.validation, "
            "or set train.best_metric to ''"
        )
    for source in (prompts, held_out):
        check_prompts(source, config.rollout.max_tokens if config.rollout.constrained else None)
