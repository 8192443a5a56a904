import dataclasses

import numpy as np
import pytest

from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """40 users and 30 items; a popular half, so that every baseline has something to learn."""
    rng = np.random.default_rng(0)
    weight = np.where(np.arange(30) < 12, 3.0, 1.0)
    rows = [
        (user, item, rng.integers(2, 6), time)
        for user in range(40)
        for time, item in enumerate(rng.choice(30, 13, replace=False, p=weight / weight.sum()))
    ]
    columns = np.array(rows).T
    log = Interactions.from_log(*columns, n_users=40, n_items=30)
    catalog = Catalog(
        title=[f"Item {n}" for n in range(30)],
        year=np.zeros(30, np.int32),
        genres=[()] * 30,
        demographics=[{}] * 40,
    )
    parts = split(log, seed=1, sizes={"evaluation": 20, "validation": 5}, candidates=8)
    return Dataset("tiny", log, catalog, parts)


@pytest.fixture(scope="session")
def users(dataset) -> np.ndarray:
    return dataset.split.users["evaluation"]


@pytest.fixture(scope="session")
def seen(dataset) -> list[set[int]]:
    """Each user's items before the cutoff, by plain loops."""
    log = dataset.interactions
    return [
        {int(log.item[row]) for row in range(log.offsets[user], dataset.split.cutoff[user])}
        for user in range(log.n_users)
    ]


@pytest.fixture(scope="session")
def changed_after_cutoffs(dataset) -> Dataset:
    """The same but for what was rated from the cutoffs on: other items, all liked."""
    log = dataset.interactions
    hidden = np.arange(len(log.item)) >= dataset.split.cutoff[log.user]
    assert hidden.sum() >= 40
    item = np.where(hidden, (log.item + 11) % log.n_items, log.item).astype(np.int32)
    rating = np.where(hidden, 5, log.rating).astype(log.rating.dtype)
    return dataclasses.replace(dataset, interactions=dataclasses.replace(log, item=item, rating=rating))
