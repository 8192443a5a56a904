"""The paper's tables: runs the missing results of every seed; a row that cannot run states what it needs.

WORKDIR/seedN is an ordinary run with seed N for split, candidates, prompts and training. All tables share it.
launch.report writes the tables.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from configs.base import system
from r2rec_jax.data import amazon
from r2rec_jax.data.config import DataConfig
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.model.config import ModelConfig
from r2rec_jax.report.paper_numbers import SHORT, dataset_name
from r2rec_jax.report.result_table import SeedResult, Table, lead_of, measured_row
from r2rec_jax.report.system_names import (
    ALIASES,
    CLASSICAL,
    CLOSED,
    POLICY,
    SYSTEMS,
    TABLES,
    TRAINED_ON,
    about,
    paper_of,
    policy_in,
)
from r2rec_jax.runs import baseline_ranking, stages
from r2rec_jax.runs.finished import Finished, read_finished, results_in
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train.state import CHECKPOINTS

TITLES = {"table1": "Main results", "table2": "Ablations", "table3": "Transfer", "mini": "R2Rec-mini"}


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs, seed by seed, all that the tables need and whose inputs are present."""
    if absent_data(config.data, workdir, config.seeds):
        return
    wanted = {name for table in config.tables for name in rows_of(table, config)}
    if "pretrain" in config:
        config = stages.with_own_model(config, workdir)
    for seed in sorted({*config.seeds, *config.policy_seeds}):
        folder = workdir / f"seed{seed}"
        c = stages.settle(seeded(config, seed), folder)
        stages.prepare_data(c, folder)
        if "pretrain" in config:
            stages.pretrain(c, workdir)
        if seed in config.seeds and wanted.intersection(CLASSICAL):
            stages.stage(folder, "baselines", baseline_ranking.rank, c.baselines)
        if seed in config.policy_seeds and ("pretrain" in config or not absent_weights(config.model)):
            _policies(c, folder, wanted)
            _compared(c, folder, wanted)


def _policies(c: ConfigDict, run: Path, wanted: set[str]) -> None:
    stages.train_policy(c, run)
    stages.evaluate(c, run, "eval", _trained_in(run, {POLICY: c.policy}))
    if "r2rec without sft" in wanted:
        stages.train_without_sft(c, run)
    if c.variants:
        stages.evaluate(c, run, "eval_variants", _trained_in(run, c.variants))
    for name, prompt in c.studies.items():
        trained = stages.train_study(c, run, name, prompt)
        systems = {study_row(name): system(str(trained), mode=c.policy.mode, prompt=prompt.to_dict())}
        stages.evaluate(c, run, f"eval_{name}", systems)
    if "prompt only" in wanted:
        without = {
            "prompt only, no interaction chain": system(prompt={"chains": 0}),
            "prompt only, no reasoning chain": system(prompt={"reasoning": False}),
            "prompt only": system(),
            "r2rec without sft": system(str(run / "grpo_alone")),
            "r2rec without rl": system(str(run / "sft")),
        }
        stages.evaluate(c, run, "eval_ablations", without)
    for data, folder in c.trained.items():
        name, adapter = TRAINED_ON + SHORT[data], Path(folder) / run.name / "grpo"
        if name in wanted and (adapter / CHECKPOINTS).exists():
            stages.evaluate(c, run, f"eval_transfer_{data}", {name: system(str(adapter))})


def _trained_in(run: Path, systems: Mapping[str, ConfigDict]) -> dict[str, ConfigDict]:
    """Copies of the systems, with adapters as folders inside `run`."""
    result = {name: system.copy_and_resolve_references() for name, system in systems.items()}
    for c in result.values():
        c.adapter = c.adapter and str(run / c.adapter)
    return result


def _compared(c: ConfigDict, run: Path, wanted: set[str]) -> None:
    """Trains and evaluates the other language-model systems whose inputs are present."""
    for name in c.compared:
        if name not in wanted or _missing_input(name, c, run):
            continue
        compared = c.compared[name].copy_and_resolve_references()
        if name in ("tallrec", "llara"):
            stages.train_compared(c, run, name)
            compared.adapter = str(run / name)
        items = c.llara.model.item_table if name == "llara" else ""
        stages.evaluate(c, run, f"eval_{name}", {name: compared}, items)


def _missing_input(name: str, c: ConfigDict, run: Path) -> str:
    """What a system of `compared` lacks besides the weights; "" if nothing."""
    if name in CLOSED and not os.environ.get(key := c.compared[name].server.key_variable):
        return f"needs {key}"
    if name == "llara" and not (items := stages.item_table(run)).exists():
        return f"needs SASRec's item vectors, {items}"
    return ""


def of_run(config: ConfigDict, finished: Finished) -> Table:
    """The table of one run, with all its systems."""
    order = list(SYSTEMS)
    place = {name: order.index(ALIASES.get(name, name)) for name in finished.metrics if _is_known(name)}
    names = sorted(place, key=place.get) + [name for name in finished.metrics if name not in place]
    return _table(config, "R2Rec", names, Path(), [finished], "")


def _is_known(name: str) -> bool:
    return ALIASES.get(name, name) in SYSTEMS


def finished_runs(config: ConfigDict, workdir: Path) -> dict[int, Finished]:
    """Seed -> run, for seeds with at least one result."""
    folders = {seed: workdir / f"seed{seed}" for seed in sorted({*config.seeds, *config.policy_seeds})}
    return {seed: read_finished(folder) for seed, folder in folders.items() if results_in(folder)}


def of_seeds(config: ConfigDict, table: str, workdir: Path, runs: dict[int, Finished]) -> Table:
    """One of the paper's tables, computed from `finished_runs`."""
    title = TITLES[table]
    names, no_data = rows_of(table, config), absent_data(config.data, workdir, config.seeds)
    return _table(config, title, names, workdir, list(runs.values()), no_data)


def rows_of(table: str, config: ConfigDict) -> tuple[str, ...]:
    """The systems of a table. Raises UserError for an unknown table."""
    if table not in TITLES:
        raise UserError(f"table {table!r} is unknown: use one or more of {', '.join(TITLES)}")
    if table == "mini":
        return (*config.baselines.systems, *map(study_row, config.studies), *config.variants, POLICY)
    return TABLES[table] if table in TABLES else (*trained_elsewhere(config.trained), POLICY)


def study_row(name: str) -> str:
    return f"r2rec without rl, {name.replace('_', ' ')}"


def trained_elsewhere(trained: Mapping[str, str]) -> dict[str, str]:
    """System -> tables workdir of the data set on which it was trained."""
    if unknown := set(trained) - set(SHORT):
        raise UserError(f"trained.{min(unknown)} is no data set of the paper: use {', '.join(SHORT)}")
    return {TRAINED_ON + SHORT[data]: folder for data, folder in trained.items()}


def seeded(config: ConfigDict, seed: int) -> ConfigDict:
    c = config.copy_and_resolve_references()
    c.seed = c.data.seed = seed
    return c


def absent_data(c: DataConfig, workdir: Path, seeds: tuple[int, ...]) -> str:
    """What to fetch if neither raw nor prepared data are present; "" if one is."""
    if c.source == "generated" or any((workdir / f"seed{seed}" / "data").exists() for seed in seeds):
        return ""
    try:
        if c.source in amazon.RELEASES:
            amazon.files(c.raw, c.source, c.category)
        elif not Path(c.raw).exists():
            make_dataset(c)
    except UserError as error:
        return str(error)
    return ""


def absent_weights(model: ModelConfig) -> str:
    """What a language-model system needs if its base model is absent; "" if it is present."""
    there = (Path(model.folder) / "config.json").exists()
    return "" if there else f"needs the weights in {model.folder}"


def config_hash(config: dict) -> str:
    """The first 12 digits of the sha256 of a resolved config."""
    resolved = json.dumps(config, sort_keys=True)
    return hashlib.sha256(resolved.encode()).hexdigest()[:12]


def _table(
    config: ConfigDict, title: str, names: list[str], workdir: Path, runs: list[Finished], no_data: str
) -> Table:
    data = dataset_name(config.data.source, config.data.category)
    results = {name: [run.seed_result(name) for run in runs if name in run.metrics] for name in names}
    policy = policy_in(names)
    rows = [
        measured_row(
            name,
            *_label_and_group(name, config, results[name]),
            results[name],
            paper=paper_of(name, data),
            missing=f"needs {config.data.raw}" if no_data else _missing(name, config, workdir),
        )
        for name in names
    ]
    rows = [
        row
        if row.system == policy
        else dataclasses.replace(row, lead=lead_of(results.get(policy, []), results[row.system]))
        for row in rows
    ]
    return Table(f"{title} on {data}", config_hash(config.to_dict()), rows, no_data)


def _label_and_group(name: str, config: ConfigDict, results: list[SeedResult]) -> tuple[str, str]:
    """A system's (label, group). A custom system is classical if launch.baselines ranked with it."""
    classical = any(result.valid_rate is None for result in results) or name in config.baselines.systems
    system = about(name, classical=classical)
    return system.label, system.group


def _missing(name: str, config: ConfigDict, workdir: Path) -> str:
    """Why a system has no results."""
    run = workdir / f"seed{min(config.policy_seeds, default=0)}"
    lack = _missing_input(name, config, run) if name in config.compared else ""
    if _label_and_group(name, config, [])[1] != "classical" and name not in CLOSED:
        lack = ("" if "pretrain" in config else absent_weights(config.model)) or lack
    folder = trained_elsewhere(config.trained).get(name)
    return lack or (f"needs that adapter in {folder}/seedN/grpo" if folder else "not run yet")
