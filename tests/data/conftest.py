"""A small data set that every test of this room may use."""

import pytest

from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split


@pytest.fixture(scope="session")
def small_dataset() -> Dataset:
    log, catalog = generate(seed=3, users=80, items=64, ratings_per_user=15)
    sizes = {"sft": 20, "grpo": 15, "validation": 5, "evaluation": 20}
    return Dataset("small", log, catalog, split(log, seed=1, sizes=sizes))
