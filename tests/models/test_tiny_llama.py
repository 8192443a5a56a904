"""The committed base model: small, loadable, and innocent of what it is evaluated on."""

from pathlib import Path

import numpy as np
import pytest

from configs import eval as evaluation
from configs import pretrain_tiny
from configs.base import MODEL_TINY
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.model.architecture import load_config, parse_config
from r2rec_jax.prompts.chat import Chat

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pretraining_log():
    return make_dataset(pretrain_tiny.get_config().data)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_saw_no_evaluation_user(pretraining_log, seed):
    """No pretraining user has the items of an evaluation user, nor those and the truth after them."""
    config = evaluation.get_config("quickstart").data
    config.seed = seed
    dataset = make_dataset(config)
    assert dataset.catalog.title == pretraining_log.catalog.title  # it may know the catalogue

    log = pretraining_log.interactions
    bounds = log.offsets
    seen = {
        tuple(log.item[bounds[u] : bounds[u] + n].tolist())
        for u in range(log.n_users)
        for n in range(5, bounds[u + 1] - bounds[u] + 1)
    }
    own = dataset.interactions
    users = dataset.split.users["evaluation"]
    histories = [own.item[dataset.history(int(user))].tolist() for user in users]
    assert min(map(len, histories)) >= 5
    assert not any(tuple(history) in seen for history in histories)
    # The search itself finds what is there.
    first = tuple(log.item[bounds[0] : bounds[1]].tolist())
    assert first in seen


def test_is_small_and_of_the_declared_architecture():
    folder = ROOT / MODEL_TINY
    files = [path for path in folder.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8e6
    declared = pretrain_tiny.get_config().model.architecture.to_dict()
    assert load_config(folder) == parse_config(declared)
    assert (folder / "README.md").exists()


def test_every_title_is_one_token():
    chat = Chat(ROOT / MODEL_TINY)
    config = evaluation.get_config("quickstart").data
    titles = make_dataset(config).catalog.title
    assert np.all([len(chat.encode(f" {title}")) == 1 for title in titles])
