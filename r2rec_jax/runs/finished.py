"""Reads the results of a finished run from all its evaluation folders."""

import dataclasses
import math
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.data import prepared
from r2rec_jax.data.config import DataConfig
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.sources import category_of
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rank.results import METRICS, UserLines, read_metrics
from r2rec_jax.report.result_table import SeedResult
from r2rec_jax.report.system_names import ALIASES, POLICY, System, about, policy_in
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.fields import read, values
from r2rec_jax.runtime.untrusted import parse_json
from r2rec_jax.runtime.workdir import read_record

STAGES = "stages.json"  # stage -> {"seconds": of all attempts, "done": bool}
# System -> the stages that train its adapter.
MADE_BY = {
    POLICY: ("annotate", "sft", "grpo"),
    "r2rec without rl": ("annotate", "sft"),
    "r2rec without sft": ("grpo_alone",),
    "tallrec": ("tallrec",),
    "llara": ("llara",),
}


@dataclasses.dataclass(frozen=True)
class Finished:
    """The data and results of a run.

    users: int[n], the evaluation users. seed: of their prompts. metrics: system -> its part of metrics.json.
    lines: system -> its users.jsonl. seconds: by stage.
    """

    dataset: Dataset
    users: np.ndarray
    seed: int
    metrics: dict[str, dict]
    lines: dict[str, UserLines]
    seconds: dict[str, float]

    @property
    def policy(self) -> str | None:
        """The name of the final policy; None if it was not evaluated."""
        return policy_in(self.metrics)

    def about(self, system: str) -> System:
        """Label and group of a system. Only language models have a valid_rate."""
        return about(system, classical="valid_rate" not in self.metrics[system])

    def rows(self, system: str) -> list[dict]:
        """The users' lines in the system's first run."""
        return self.lines[system].of(system, 0, self.users)

    def ranks(self, system: str) -> np.ndarray:
        """Ranks of the held-out items, int32 [R, n]; 0 for a miss."""
        return self.lines[system].ranks(system, self.users)

    def prompt_of(self, system: str, prompt: PromptConfig, data: DataConfig) -> tuple[PromptConfig, bool]:
        """(`prompt` section, data.before_target_time) with which launch.eval ranked the system.

        `prompt` and `data` are the defaults for a folder without config.json.
        """
        folder = self.lines[system].path.parent
        record = read_record(folder)
        prompt = dict(values(prompt)) | record.get("prompt", {})
        prompt |= record.get("systems", {}).get(system, {}).get("prompt", {})
        before = record.get("data", {}).get("before_target_time", data.before_target_time)
        return read(PromptConfig, ConfigDict(prompt), f"{folder}/config.json: prompt"), before

    def seed_result(self, system: str) -> SeedResult:
        metrics, stages = self.metrics[system], MADE_BY.get(ALIASES.get(system, system), ())
        trained = [self.seconds[stage] for stage in stages if stage in self.seconds]
        # The training time is unknown if the stages were run one by one.
        seconds = 0.0 if stages and not trained else metrics["wall_s"] + sum(trained)
        valid = metrics.get("valid_rate")
        return SeedResult(self.seed, self.users, self.ranks(system), seconds, valid)


def read_finished(run: Path) -> Finished:
    """Reads RUN/data and every RUN/*/metrics.json. Raises UserError if there is none."""
    folders = results_in(run)
    if not folders:
        raise UserError(f"no evaluation in {run}: run launch.reproduce into it first")
    dataset = prepared.load(run / "data")
    metrics, lines = {}, {}
    for folder in folders:
        report = read_metrics(folder)
        metrics |= report["systems"]
        lines |= dict.fromkeys(report["systems"], UserLines(folder, dataset))
    users = dataset.split.users["evaluation"]
    seconds = {name: stage["seconds"] for name, stage in read_stages(run).items()}
    return Finished(dataset, users, report["seed"], metrics, lines, seconds)


def of_these_data(config: ConfigDict, run: Path) -> ConfigDict:
    """`config` with the source, candidates and negatives of RUN/data.

    A run made stage by stage may be reported with any config. The title, chance and the paper's numbers then
    match its data.
    """
    c = config.copy_and_resolve_references()
    manifest = prepared.read_manifest(run / "data")
    with c.unlocked():
        c.data.source = manifest["name"]
        c.data.category = category_of(manifest["name"], manifest["source"]) or c.data.category
        c.data.candidates = manifest["counts"]["candidates"]
        c.data.negatives = manifest["protocol"].get("negatives", c.data.negatives)
    return c


def results_in(run: Path) -> list[Path]:
    """The folders of a run that have a metrics.json."""
    return sorted(path.parent for path in run.glob(f"*/{METRICS}"))


def read_stages(run: Path) -> dict[str, dict]:
    """Reads stages.json of a run; {} before the first stage. Raises UserError if it is damaged."""
    path = run / STAGES
    if not path.exists():
        return {}
    try:
        stages = parse_json(path.read_bytes())
        valid = all(
            0 <= stage["seconds"] < math.inf and type(stage["done"]) is bool for stage in stages.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise UserError(f"{path} is damaged: remove it to check every stage again")
    return stages
