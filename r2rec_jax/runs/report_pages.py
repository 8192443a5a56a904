"""The HTML report of a finished run, or one page for each of its tables."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.config import DataConfig
from r2rec_jax.data.prepared import candidates_hash
from r2rec_jax.metrics.system_metrics import by_quartile
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.report.cases import Case, build_case, choose
from r2rec_jax.report.html_report import Curve, Groups, Report, render
from r2rec_jax.report.result_table import Table, as_json
from r2rec_jax.report.result_text import markdown
from r2rec_jax.runs import paper_tables
from r2rec_jax.runs.finished import Finished, of_these_data, read_finished
from r2rec_jax.runtime import metric_writer
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.workdir import read_record

PAGE = "report"


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    names = config.tables or (PAGE,)
    there = next((page for name in names if (page := workdir / f"{name}.html").exists()), None)
    if there and not overwrite:
        raise UserError(f"{there} already exists: add --overwrite to write it again")
    for page in write(config, workdir):
        print(page)


def write(config: ConfigDict, workdir: Path) -> dict[Path, Table]:
    """Writes NAME.html, NAME.md and NAME.json for each table; returns page -> table."""
    if config.tables:
        runs = paper_tables.finished_runs(config, workdir)
        tables = {name: paper_tables.of_seeds(config, name, workdir, runs) for name in config.tables}
        # Curves and cases show one seed, the first with a policy.
        seed = next((seed for seed, run in runs.items() if run.policy), next(iter(runs), None))
        shown, folder, detail = runs.get(seed), workdir / f"seed{seed}", f"Of seed {seed}."
    else:
        shown, folder, detail = read_finished(workdir), workdir, ""
        config = of_these_data(config, workdir)
        table = paper_tables.of_run(config, shown)
        if recorded := read_record(workdir):  # the config that made the run, whichever is given here
            table = dataclasses.replace(table, config_hash=paper_tables.config_hash(recorded))
        tables = {PAGE: table}
    for name, table in tables.items():
        parts = _parts(config.prompt, config.data, folder, shown) | {"detail": detail} if shown else {}
        report = Report(
            _facts(config.data, table, shown, folder), table, candidates=config.data.candidates, **parts
        )
        write_atomic(workdir / f"{name}.md", markdown(table))
        write_atomic(workdir / f"{name}.json", json.dumps(as_json(table), indent=2) + "\n")
        write_atomic(workdir / f"{name}.html", render(report))
    return {workdir / f"{name}.html": table for name, table in tables.items()}


def _parts(prompt: PromptConfig, data: DataConfig, folder: Path, finished: Finished) -> dict:
    """Curves, figures and cases of the run in `folder`, as fields of Report."""
    return {
        "curves": [*_training(folder), _places(finished)],
        "groups": _groups(finished),
        "cases": _cases(finished, prompt, data),
    }


def _facts(data: DataConfig, table: Table, finished: Finished | None, folder: Path) -> dict[str, str]:
    facts = {
        "Data": data.source,
        "Candidates": f"{data.candidates} a user, {data.negatives} negatives",
        **_trained(folder),
        "Seeds": ", ".join(map(str, sorted({seed for row in table.rows for seed in row.seeds}))) or "none",
    }
    if finished is not None:
        facts["Evaluation users"] = f"{len(finished.users)} a seed"
        measured = finished.metrics.get(finished.policy or "", {})
        if any(measured.get(name) for name in ("dropped_chains", "dropped_likes")):
            facts["Left out of a prompt, on average"] = (
                f"{measured['dropped_chains']:.3g} chains, {measured['dropped_likes']:.3g} likes"
            )
        facts["Candidates' hash"] = f"{candidates_hash(finished.dataset.split)[:12]} (seed {finished.seed})"
    return facts


def _trained(folder: Path) -> dict[str, str]:
    """Model and stages of the run, from each stage's own config.json."""
    sft, grpo = read_record(folder / "sft"), read_record(folder / "grpo")
    facts = {}
    if record := grpo or sft or read_record(folder / "eval"):
        facts["Model"] = record["model"]["folder"]
    if record := grpo or sft:
        facts["Adapter"] = f"LoRA rank {record['lora']['rank']}, alpha {record['lora']['alpha']:g}"
    if sft:
        facts["SFT"] = f"{sft['train']['steps']} steps of {sft['train']['batch_size']}"
    if grpo:
        train = grpo["train"]
        facts["GRPO"] = f"{train['steps']} steps of {train['batch_size']} prompts x {grpo['grpo']['group']}"
    return facts


def _training(folder: Path) -> list[Curve]:
    def points(stage: str, name: str) -> list[tuple[float, float]]:
        return [(row["step"], row[name]) for row in metric_writer.read(folder / stage) if name in row]

    curves = [
        Curve(
            "Reward during GRPO",
            "step",
            "mean reward",
            {
                "sampled in training": points("grpo", "train/reward"),
                "validation users": points("grpo", "validation/reward"),
                "sampled, from the base model": points("grpo_alone", "train/reward"),
                "validation users, from the base model": points("grpo_alone", "validation/reward"),
            },
        ),
        Curve("SFT loss", "step", "nats a token", {"train": points("sft", "train/loss")}),
    ]
    drawn = [{name: line for name, line in curve.series.items() if line} for curve in curves]
    return [
        dataclasses.replace(curve, series=series)
        for curve, series in zip(curves, drawn, strict=True)
        if series
    ]


def _compared(finished: Finished) -> dict[str, dict]:
    """Label -> metrics of the two systems in the figures.

    They are the final policy and the best classical system, without a policy the two best classical ones, and
    without classical ones the two best of all.
    """
    best = sorted(finished.metrics, key=lambda name: -finished.metrics[name]["hr@1"])
    names = [finished.policy] if finished.policy else []
    names += [name for name in best if finished.about(name).group == "classical"]
    return {finished.about(name).label: finished.metrics[name] for name in (names or best)[:2]}


def _places(finished: Finished) -> Curve:
    places = {
        name: [
            (place, math.nan if rate is None else rate)
            for place, rate in enumerate(row["hr@1_by_position"], start=1)
        ]
        for name, row in _compared(finished).items()
    }
    note = "A flat line means that the item's place in the list has no influence. The dashed line is chance."
    width = finished.dataset.split.candidates.shape[1]
    curve = Curve("HR@1 by place of the held-out item", "place among the candidates", "HR@1", places, note)
    return dataclasses.replace(curve, level=1 / width, ends=False)


def _groups(finished: Finished) -> list[Groups]:
    """HR@1 of two systems by activity and popularity; of the policy also by length of the reasoning."""
    compared = _compared(finished)
    groups = [
        Groups(
            "HR@1 by activity of the user",
            "ratings before the held-out item, quarters of the users",
            {name: row["hr@1_by_activity"] for name, row in compared.items()},
        ),
        Groups(
            "HR@1 by popularity of the held-out item",
            "visible ratings of the item, quarters of the users",
            {name: row["hr@1_by_popularity"] for name, row in compared.items()},
        ),
    ]
    if finished.policy:
        rows = finished.rows(finished.policy)
        hit = np.array([row["truth_rank"] == 1 for row in rows], float)
        statements = np.array([row["statements"] for row in rows])
        if len(by_length := by_quartile(hit, statements, finished.seed)) > 1:
            groups.append(
                Groups(
                    "HR@1 by length of the reasoning",
                    "statements before the answer",
                    {finished.about(finished.policy).label: by_length},
                    "Whether longer reasoning goes with a higher HR@1.",
                )
            )
    return groups


def _cases(finished: Finished, prompt: PromptConfig, data: DataConfig) -> list[Case]:
    if not finished.policy:
        return []
    graph, (prompt, before) = build_graph(finished.dataset), finished.prompt_of(finished.policy, prompt, data)
    return [
        build_case(row, finished.dataset, graph, prompt, seed=finished.seed, before_target_time=before)
        for row in choose(finished.rows(finished.policy))
    ]
