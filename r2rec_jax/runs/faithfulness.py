"""Measures whether rankings follow the prompt and the reasoning, and whether the prompt supports the
reasoning.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from r2rec_jax.cli.required_inputs import require
from r2rec_jax.data import prepared
from r2rec_jax.data.prepared import Dataset, candidates_hash
from r2rec_jax.faithful.edits import Edited, Editor
from r2rec_jax.faithful.measures_text import text
from r2rec_jax.faithful.results_file import line_of, measure, unsupported
from r2rec_jax.faithful.trials import Trials
from r2rec_jax.model.architecture import load_config
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.wording import wording_of
from r2rec_jax.rank.config import SystemConfig
from r2rec_jax.rank.policy_ranker import PolicyRanker
from r2rec_jax.rank.results import UserLines
from r2rec_jax.rollout.completions import check_prompts
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.runs.build_rankers import make_policies, sections_and_runs
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.untrusted import json_line
from r2rec_jax.runtime.workdir import claim, require_same_inputs
from r2rec_jax.teachers.facts import FactChecker

REPORT, TABLE, UNSUPPORTED = "faithful.json", "faithful.txt", "unsupported.jsonl"


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    print(text(examine(config, workdir, overwrite)))


def examine(config: ConfigDict, workdir: Path, overwrite: bool) -> dict[str, dict]:
    """Measures every system, writes the result files, and returns the measures of each system."""
    _check(config.systems)
    sections, runs = sections_and_runs(config)
    adapters = {c.adapter: "grpo" for c in config.systems.values() if c.adapter}
    require(config, "model", "data", adapters=adapters)
    chat = Chat(config.model.folder, first_item=load_config(config.model.folder).vocab_size)
    dataset = prepared.load(config.data.folder)
    users = _users(config.users, dataset, config.data.folder)
    mesh = make_mesh(**config.mesh)
    sampling = RolloutConfig.read(config.rollout)
    checksums: dict[str, int] = {}
    load = make_policies(config, sections, mesh, dataset, checksums)
    policies = {name: load(name) for name in sections}
    before = config.data.before_target_time
    prompts = {
        name: RankingPrompts(dataset, users, chat, section, config.seed, before_target_time=before)
        for name, section in sections.items()
    }
    for source in prompts.values():
        check_prompts(source, None)
    claim(workdir, config, overwrite)
    require_same_inputs(workdir, checksums)

    lines = UserLines(workdir, dataset)
    for name, section in sections.items():
        missing = {k for k, run in np.ndindex(len(users), runs[name]) if (name, run, users[k]) not in lines}
        if missing:
            model, variables = policies[name]
            ranker = PolicyRanker(
                model,
                chat,
                sampling,
                mesh,
                mode="likelihood",
                runs=runs[name],
                samples=1,
                rows=config.evaluate.batch_size,
            )
            edited = _edited(prompts[name], config.seed)
            checker = FactChecker(dataset.catalog, wording_of(section.wording, dataset))
            done = (len(users) - len(missing)) * runs[name]
            bar = {"total": len(users) * runs[name], "initial": done, "unit": "user", "mininterval": 1.0}
            with tqdm(desc=f"faithful {name}", **bar) as progress:
                trials = Trials(ranker, section)
                for k, run, trial in trials(variables, edited, seed=config.seed, wanted=missing):
                    if (name, run, users[k]) not in lines:
                        lines.append(name, run, users[k], **line_of(run, edited[k], trial, checker))
                        progress.update()
    lines.sort(list(sections), users)
    results = {name: [lines.of(name, run, users) for run in range(runs[name])] for name in sections}
    systems = {name: measure(rows, config.seed) for name, rows in results.items()}
    wrong = [json_line(statement) for rows in results.values() for statement in unsupported(rows)]
    report = {"users": len(users), "candidates_sha256": candidates_hash(dataset.split), "seed": config.seed}
    write_atomic(workdir / UNSUPPORTED, b"".join(wrong))
    write_atomic(workdir / TABLE, text(systems) + "\n")
    report = json.dumps(report | {"systems": systems}, indent=2, allow_nan=False)
    write_atomic(workdir / REPORT, report + "\n")
    return systems


def _check(systems: Mapping[str, SystemConfig]) -> None:
    for name, c in systems.items():
        if (c.kind, c.mode, c.samples) != ("policy", "likelihood", 1):
            raise UserError(
                f"systems.{name}: candidates are scored after one reasoning: use kind policy, mode "
                "likelihood and 1 sample"
            )


def _users(count: int, dataset: Dataset, folder: str) -> np.ndarray:
    """The first `count` evaluation users of the data in `folder`."""
    users = dataset.split.users["evaluation"]
    if not 2 <= count <= len(users):
        raise UserError(f"users={count}: use 2 to {len(users)}, the evaluation users of {folder}")
    return users[:count]


def _edited(prompts: RankingPrompts, seed: int) -> list[Edited]:
    editor = Editor(prompts.dataset.catalog, prompts.graph, prompts.wording, prompts.chat, prompts.config)
    bar = tqdm(range(len(prompts)), desc="edits", unit="user", mininterval=1.0, delay=1.0)
    return [editor(prompts[k], seed) for k in bar]
