"""Checks and runs any baseline by its section of configs/baselines.py."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from r2rec_jax.baselines import ease, item_knn, popularity, random_order, trainer
from r2rec_jax.baselines.config import BaselineConfig
from r2rec_jax.baselines.edges import seen_rows
from r2rec_jax.baselines.next_item import NextItem
from r2rec_jax.baselines.propagation import Propagation
from r2rec_jax.baselines.sequences import users_with_two
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.config import MeshConfig
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.fields import values

CLOSED_FORM = ("random_order", "popularity", "item_knn", "ease")
SEQUENTIAL, GRAPH = ("sasrec", "gru4rec", "caser"), ("graphsage", "ngcf", "lightgcn")
NEURAL = (*SEQUENTIAL, *GRAPH)
WHOLE_MESH = MeshConfig()


def check(dataset: Dataset, name: str, config: BaselineConfig) -> None:
    """Raises UserError if the system with this name and config section cannot be fitted to the data."""
    module = values(config).get("module", "")
    if module not in (*CLOSED_FORM, *NEURAL):
        raise UserError(f"{name}.module={module!r}: use one of {', '.join((*CLOSED_FORM, *NEURAL))}")
    if module == "ease":
        ease.check_size(dataset.interactions.n_items)
    if module in NEURAL:
        trainer.held_out(dataset)
    if module in SEQUENTIAL:
        users_with_two(dataset)
    if module in GRAPH:
        seen_rows(dataset, liked=config.liked)


def score(
    dataset: Dataset,
    users: np.ndarray,
    config: BaselineConfig,
    workdir: Path,
    *,
    seed: int = 0,
    mesh: MeshConfig = WHOLE_MESH,
    trace: str = "",
) -> np.ndarray:
    """Fits one system and scores the candidates of `users`.

    Args:
        users: int[n], users of any group of the split.
        config: the system's section: `module` and its settings.
        workdir: folder for the training of a neural system, which resumes from checkpoints there. It also
            receives the item embeddings `trainer.ITEMS`.
        seed, mesh, trace: settings of the training; trace as `profile.steps`.

    Returns:
        float64[n, C], higher is better.
    """
    match config.module:
        case "random_order":
            return _closed_form(random_order.fit_score, dataset, users, config)
        case "popularity":
            return _closed_form(popularity.fit_score, dataset, users, config)
        case "item_knn":
            return _closed_form(item_knn.fit_score, dataset, users, config)
        case "ease":
            return _closed_form(ease.fit_score, dataset, users, config)
        case "sasrec" | "gru4rec" | "caser":
            system = NextItem(dataset, config, seed)
        case "graphsage" | "ngcf" | "lightgcn":
            system = Propagation(dataset, config, seed)
        case unknown:
            raise UserError(
                f"baselines: module {unknown!r} is unknown; configs/baselines.py lists all modules"
            )
    return trainer.fit_score(system, dataset, users, config, workdir, seed=seed, mesh=mesh, trace=trace)


def _closed_form(
    fit_score: Callable, dataset: Dataset, users: np.ndarray, config: BaselineConfig
) -> np.ndarray:
    settings = {name: value for name, value in values(config).items() if name != "module"}
    return fit_score(dataset, users, **settings)
