"""What every test shares: a cache of compiled programs, eight virtual devices, and a small data set."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest

from r2rec_jax.chains.graph import Graph, build_graph
from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.data.rating_scale import COUNTS, FIVE_STARS, NONE, STARS, Scale
from r2rec_jax.prompts.ranking_prompt import RankingRecord, make_record

EIGHT = "--xla_force_host_platform_device_count=8"
# Asking jax for its devices would start the backend, which jax.distributed forbids.
HAS_EIGHT = EIGHT in os.environ.get("XLA_FLAGS", "")


def pytest_configure(config):
    # A property holds however busy the machine is.
    hypothesis.settings.register_profile("suite", deadline=None)
    hypothesis.settings.load_profile("suite")
    cache = Path(config.rootpath) / ".pytest_cache" / "jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    # jax keeps only what took a second to compile; tests compile many programs that take less.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def pytest_runtest_setup(item):
    if item.get_closest_marker("eight_devices") and not HAS_EIGHT:
        pytest.skip("run by test_on_eight_devices")


@pytest.fixture
def run_on_eight_devices(request):
    """Runs the `eight_devices` tests of the caller's file in a process that has them; all must pass."""

    def run():
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "eight_devices", str(request.path)],
            cwd=request.config.rootpath,
            env=os.environ | {"XLA_FLAGS": EIGHT, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0 and "skipped" not in result.stdout, result.stdout

    return run


@pytest.fixture
def mount(tmp_path):
    """mount(options) -> an empty file system of its own in memory; only who may mount can have one."""
    mounted = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no right to mount: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    log, catalog = generate(seed=5, users=90, items=64, ratings_per_user=14)
    sizes = {"sft": 40, "grpo": 10, "validation": 5, "evaluation": 15}
    return Dataset("small", log, catalog, split(log, seed=2, sizes=sizes))


@pytest.fixture(scope="session")
def graph(dataset) -> Graph:
    return build_graph(dataset)


@pytest.fixture(scope="session")
def records(dataset, graph) -> list[RankingRecord]:
    """Every user of every group, with two to five chains; every fifth has none."""
    users = np.concatenate(list(dataset.split.users.values()))
    return [
        make_record(dataset, graph, int(user), chains=(5, 4, 3, 2, 0)[k % 5], likes=5, seed=k)
        for k, user in enumerate(users)
    ]


SCALES = {
    "1 to 5": (FIVE_STARS, lambda rating: rating),
    "2 to 10": (Scale(STARS, 2, 10, 2), lambda rating: 2 * rating),
    "half stars": (Scale(STARS, 0.5, 5, 0.5), lambda rating: rating - 0.5),
    "tenths": (Scale(STARS, 0.1, 5, 0.1), lambda rating: np.float32(rating - np.float32(0.3))),
    "0 to 100": (Scale(STARS, 0, 100, 1), lambda rating: np.round(25 * (rating - 1))),
    "counts": (Scale(COUNTS, 1, 625, 1), lambda rating: 5.0 ** (rating - 1)),
    "events": (Scale(NONE, 1, 1, 1), lambda rating: 0 * rating + 1),
}


@pytest.fixture(scope="session", params=SCALES)
def scaled(request, dataset) -> Dataset:
    """The small data set with its ratings on another scale."""
    scale, convert = SCALES[request.param]
    log = dataclasses.replace(dataset.interactions, rating=convert(dataset.interactions.rating))
    divided = split(
        log, seed=2, sizes={"sft": 30, "evaluation": 15}, like_above=scale.like_above, min_likes=4
    )
    return Dataset("scaled", log, dataset.catalog, divided, scale)
