"""Every baseline by name."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from r2rec_jax.baselines import ease, item_knn, popularity, random_order
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.runtime.errors import UserError

NAMES = ("random_order", "popularity", "item_knn", "ease")


def score(name: str, dataset: Dataset, users: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Fits one baseline and scores the candidates of `users`.

    Args:
        name: one of NAMES.
        users: int[n], users of any split.
        settings: keyword arguments of that baseline's `fit_score`.

    Returns:
        float64[n, C], higher is better.
    """
    match name:
        case "random_order":
            fit_score = random_order.fit_score
        case "popularity":
            fit_score = popularity.fit_score
        case "item_knn":
            fit_score = item_knn.fit_score
        case "ease":
            fit_score = ease.fit_score
        case _:
            raise UserError(f"baselines: {name!r} is unknown; choose from {', '.join(NAMES)}")
    try:
        inspect.signature(fit_score).bind(dataset, users, **settings)
    except TypeError as error:
        raise UserError(f"baselines: settings of {name}: {error}") from None
    return fit_score(dataset, users, **settings)
