"""Builds the ranker of each system of an evaluation, with its prompts, model and adapter."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Set

import jax
import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.cli.required_inputs import check_items
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.model.llama import Llama
from r2rec_jax.model.policy import Policy, load_policy, with_items
from r2rec_jax.pipeline.prompt_source import Prompt, RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rank.config import KINDS, SystemConfig
from r2rec_jax.rank.policy_ranker import PolicyRanker
from r2rec_jax.rank.server_ranker import ServerRanker
from r2rec_jax.rank.tallrec_ranker import TALLRecRanker
from r2rec_jax.rollout.completions import check_prompts
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.parsed_completion import ParsedCompletion
from r2rec_jax.runtime.checksum import of_arrays
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.fields import read, values
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.teachers.server import Server
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import restore_trainable

# Takes the indices of the wanted users; yields (k, run, completion) for at least those, as each finishes.
Rank = Callable[[Set[int]], Iterator[tuple[int, int, ParsedCompletion]]]


def prompt_section(prompt: PromptConfig, system: SystemConfig, name: str) -> PromptConfig:
    """The `prompt` section with the changes of system `name`. Raises UserError for an invalid system."""
    _check_kind(name, system)
    own = read(PromptConfig, ConfigDict(system.prompt), f"systems.{name}.prompt")
    differing = {field: getattr(own, field) for field in system.prompt}
    return dataclasses.replace(PromptConfig.read(prompt), **differing)


def _check_kind(name: str, c: SystemConfig) -> None:
    """Raises UserError for a field that the system's kind does not use."""
    if c.kind not in KINDS:
        raise UserError(f"systems.{name}.kind {c.kind!r} is unknown: use one of {', '.join(KINDS)}")
    if c.kind != "policy" and (c.mode != "generate" or c.samples != 1):
        raise UserError(f"systems.{name}: kind {c.kind} has neither mode nor samples: leave them out")
    has_server = values(c).get("server") is not None
    if (c.kind == "server") != has_server or (c.kind == "server" and c.adapter):
        raise UserError(
            f"systems.{name}: a server has its own section and no adapter, other kinds have none: in a "
            'config file, system(kind="server", served=server("MODEL"))'
        )


def count_runs(name: str, c: SystemConfig, prompt: PromptConfig, temperature: float, runs: int) -> int:
    """The number of runs of a system: `runs`, or 1 if all runs would be equal."""
    scored = c.kind == "tallrec" or (c.mode == "likelihood" and not prompt.reasoning)
    if temperature > 0 and not scored:
        return runs
    if c.samples > 1:
        raise UserError(
            f"systems.{name}.samples={c.samples} would all be equal: use 1, or rollout.temperature above 0"
        )
    return 1


def sections_and_runs(config: ConfigDict) -> tuple[dict[str, PromptConfig], dict[str, int]]:
    """(`prompt` section, number of runs) by system."""
    systems, most = config.systems.items(), config.evaluate.runs
    sections = {name: prompt_section(config.prompt, c, name) for name, c in systems}
    temperature = config.rollout.temperature
    return sections, {name: count_runs(name, c, sections[name], temperature, most) for name, c in systems}


def make_policies(
    config: ConfigDict,
    sections: dict[str, PromptConfig],
    mesh: jax.sharding.Mesh,
    dataset: Dataset,
    adapters: dict[str, int],
) -> Callable[[str], tuple[Llama, dict]]:
    """Returns a function: system name -> (model, variables). The base model is loaded once.

    The function adds the checksum of each system's adapter to `adapters`. It raises UserError as
    `make_rankers` does.
    """
    base = {"model": config.model, "lora": config.lora}
    optimizer = make_optimizer(config.optimizer, steps=1)

    @functools.cache
    def plain() -> Policy:
        return load_policy(config.model, config.lora, mesh, config.seed)

    @functools.cache
    def hybrid() -> Policy:
        check_items(config.model.item_table, dataset, config.data.folder)
        return with_items(plain(), config.model.item_table, mesh, config.seed)

    def adapted(name: str) -> tuple[Llama, dict]:
        policy = hybrid() if sections[name].item_tokens else plain()
        trainable, adapter = policy.trainable, config.systems[name].adapter
        if adapter:
            trainable = restore_trainable(adapter, trainable, optimizer, config.restore, base)
            adapters[name] = of_arrays(trainable)
        return policy.model, {**policy.frozen, **trainable}

    return adapted


def make_rankers(
    config: ConfigDict,
    sections: dict[str, PromptConfig],
    runs: dict[str, int],
    chat: Chat,
    dataset: Dataset,
    users: np.ndarray,
    adapters: dict[str, int],
) -> dict[str, Rank]:
    """The rankers in the order of the systems; the base model is loaded once if a system needs it.

    adapters: see `make_policies`. Raises UserError for missing keys, checkpoints or item vectors, for invalid
    settings, and for prompts that fit no bucket.
    """
    mesh = make_mesh(**config.mesh)
    sampling = RolloutConfig.read(config.rollout)
    adapted = make_policies(config, sections, mesh, dataset, adapters)

    @functools.cache  # systems with equal settings share a ranker and its compiled programs
    def ranker(model: Llama, mode: str, runs: int, samples: int) -> PolicyRanker:
        rows = config.evaluate.batch_size
        return PolicyRanker(model, chat, sampling, mesh, mode=mode, runs=runs, samples=samples, rows=rows)

    @functools.cache
    def source(section: PromptConfig) -> RankingPrompts:
        before = config.data.before_target_time
        return RankingPrompts(dataset, users, chat, section, config.seed, before_target_time=before)

    @functools.cache
    def prompts(section: PromptConfig) -> list[Prompt]:
        return [source(section)[k] for k in range(len(users))]

    def of(name: str) -> Rank:
        c, section = config.systems[name], sections[name]
        match c.kind:
            case "policy":
                model, variables = adapted(name)
                rank = ranker(model, c.mode, runs[name], c.samples)
                check_prompts(source(section), sampling.max_tokens if c.mode == "constrained" else None)
                return lambda wanted: rank(
                    variables, prompts(section), section, seed=config.seed, wanted=wanted
                )
            case "tallrec":
                model, variables = adapted(name)
                # Each question has two answers, so half the users make the same number of rows.
                rank = TALLRecRanker(model, source(section), mesh, max(1, config.evaluate.batch_size // 2))
                return lambda wanted: rank(variables, wanted)
            case "server":
                own = {
                    field: getattr(config.rollout, field) for field in ("max_tokens", "temperature", "top_p")
                }
                server = Server(c.server, f"systems.{name}.server", **own)
                rank_by_server = ServerRanker(server, config.evaluate.replies, runs[name])
                check_prompts(source(section), None)
                return lambda wanted: rank_by_server(prompts(section), section, wanted)

    return {name: of(name) for name in config.systems}
