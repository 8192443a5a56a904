"""Every baseline by its section of configs/baselines.py."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.baselines import ease, item_knn, popularity, random_order, trainer
from r2rec_jax.baselines.edges import seen_rows
from r2rec_jax.baselines.next_item import NextItem
from r2rec_jax.baselines.propagation import Propagation
from r2rec_jax.baselines.sequences import users_with_two
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError

CLOSED_FORM = ("random_order", "popularity", "item_knn", "ease")
SEQUENTIAL, GRAPH = ("sasrec", "gru4rec", "caser"), ("graphsage", "ngcf", "lightgcn")
NEURAL = (*SEQUENTIAL, *GRAPH)


def check(dataset: Dataset, name: str, config: ConfigDict) -> None:
    """Raises UserError for a system, by its name and section, that could not be fitted to these data."""
    module = config.get("module", "")
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


def score(dataset: Dataset, users: np.ndarray, config: ConfigDict, workdir: Path) -> np.ndarray:
    """Fits one system and scores the candidates of `users`.

    Args:
        users: int[n], users of any split.
        config: the system's section: `module` names what it is, the rest are its settings.
        workdir: a neural system is trained there, going on from what is there; it leaves ITEMS there.

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
            return trainer.fit_score(NextItem(dataset, config, config.seed), dataset, users, config, workdir)
        case "graphsage" | "ngcf" | "lightgcn":
            return trainer.fit_score(
                Propagation(dataset, config, config.seed), dataset, users, config, workdir
            )
    raise UserError(f"baselines: module {config.module!r} is unknown; configs/baselines.py has them all")


def _closed_form(fit_score: Callable, dataset: Dataset, users: np.ndarray, config: ConfigDict) -> np.ndarray:
    settings = {name: value for name, value in config.items() if name != "module"}
    return fit_score(dataset, users, **settings)
