"""Trains the classical and neural baselines, each in its own folder, and ranks the evaluation users."""

import itertools
import time
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from r2rec_jax.baselines import suite
from r2rec_jax.baselines.config import BaselineConfig
from r2rec_jax.cli.required_inputs import require
from r2rec_jax.data import prepared
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.metrics.ranking_metrics import ranks_from_scores
from r2rec_jax.metrics.system_metrics import measure, paired
from r2rec_jax.rank.results import UserLines, write_metrics
from r2rec_jax.runs.evaluation import table
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.workdir import claim


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    print(table(rank(config, workdir, overwrite)))


def rank(config: ConfigDict, workdir: Path, overwrite: bool) -> dict[str, dict]:
    """Trains and ranks with every system, writes the result files, and returns the metrics of each system."""
    require(config, "data")
    if unknown := next((name for name in config.systems if name not in config), None):
        raise UserError(
            f"systems has {unknown!r}, but the config has no such section: see configs/baselines.py"
        )
    dataset = prepared.load(config.data.folder)
    users = dataset.split.users["evaluation"]
    if not len(users):
        raise UserError(
            f"{config.data.folder} has no evaluation users: prepare it with data.sizes.evaluation"
        )
    for name in config.systems:
        suite.check(dataset, name, config[name])
    claim(workdir, config, overwrite)
    lines, results, ranks = UserLines(workdir, dataset), {}, {}
    for name in config.systems:
        if any((name, 0, int(user)) not in lines for user in users):
            how = {"seed": config.seed, "mesh": config.mesh, "trace": config.profile.steps}
            _rank(dataset, users, config[name], workdir / name, lines, **how)
        ranks[name] = lines.ranks(name, users)
        wall_s = sum(line["wall_s"] for line in lines.of(name, 0, users))
        results[name] = measure(dataset, users, ranks[name], config.seed) | {"wall_s": round(wall_s, 1)}
        logging.info("%s: HR@1 %.3f, %.0f s", name, results[name]["hr@1"], wall_s)
    differences = {
        f"{later} - {earlier}": paired(ranks[later], ranks[earlier], config.seed)
        for earlier, later in itertools.combinations(config.systems, 2)
    }
    write_metrics(workdir, dataset, len(users), config.seed, results, differences)
    return results


def _rank(
    dataset: Dataset, users: np.ndarray, config: BaselineConfig, folder: Path, lines: UserLines, **how
) -> None:
    """Appends the lines of one system; `wall_s` of a line is the total time divided by the users.

    how: arguments of `suite.score`.
    """
    start = time.monotonic()
    scores = suite.score(dataset, users, config, folder, **how)
    ranks = ranks_from_scores(scores, dataset.split.candidates[users], dataset.split.truth[users])
    wall_s = (time.monotonic() - start) / len(users)
    for user, rank in zip(users, ranks, strict=True):
        if (folder.name, 0, int(user)) not in lines:
            lines.append(folder.name, 0, user, rank, wall_s=wall_s)
