"""The systems that are compared, trained and evaluated by their commands on a random model."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import data as data_config
from configs import eval as eval_config
from configs import llara, tallrec
from configs.base import server, system
from r2rec_jax.data import prepared
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.huggingface import save_params
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.model.policy import load_policy, with_items
from r2rec_jax.performance.programs import abstract_policy
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.runs import evaluation, preparation, training
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.metric_writer import read
from r2rec_jax.train.export import restore_adapter
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import restore_trainable
from tests.teachers.test_server import fake  # noqa: F401 - a fixture

USERS = 3


class Road:
    def __init__(self, folder: Path):
        self.folder = folder
        self.data = self.shrink(data_config.get_config("generated"))
        self.tallrec = self.shrink(tallrec.get_config("quickstart"))
        self.tallrec.train.update({"steps": 3, "batch_size": 4, "questions": 2, "response_buckets": (32,)})
        self.llara = self.shrink(llara.get_config("quickstart"))
        self.llara.train.update({"steps": 6, "batch_size": 2, "response_buckets": (32,)})
        self.eval = self.shrink(eval_config.get_config("quickstart"))
        self.eval.evaluate.update({"batch_size": 2, "replies": self.at("replies")})
        self.eval.systems = ConfigDict({})
        self.eval.systems.tallrec = system(self.at("tallrec"), kind="tallrec", prompt=tallrec.PROMPT)
        self.eval.systems.llara = system(self.at("llara"), mode="likelihood", prompt=llara.PROMPT)

    def at(self, name: str) -> str:
        return str(self.folder / name)

    def shrink(self, config):
        config.data.update({"folder": self.at("data"), "generated_users": 80})
        config.data.sizes.update({"sft": 6, "grpo": 0, "validation": 0, "evaluation": USERS})
        config.prompt.buckets = (256,)
        config.model.update({"folder": self.at("model"), "item_table": self.at("items.npy")})
        config.lora.rank = 2
        return config


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Road:
    road = Road(tmp_path_factory.mktemp("road"))
    dataset = make_dataset(road.data.data)
    titles = list(dataset.catalog.title)
    tokenizer = train_tokenizer(
        [f"Kai is fond of {a}, {b}. Order: {b}" for a in titles for b in titles[:5]], 500
    )
    config = LlamaConfig(tokenizer.get_vocab_size(), 16, 24, 1, 2, 1, 8, 1e-5, 1000.0, None, 512, False)
    params = jax.jit(lambda: init_variables(Llama(config), 0)["params"])()
    save_params(road.at("model"), config, params, files={"tokenizer.json": tokenizer.to_str()})
    items = np.random.default_rng(0).normal(size=(dataset.interactions.n_items, 5)).astype(np.float32)
    np.save(road.at("items.npy"), items)
    preparation.main(road.data, Path(road.at("data")), False)
    training.main(road.tallrec, Path(road.at("tallrec")), False)
    training.main(road.llara, Path(road.at("llara")), False)
    return road


def lines(workdir) -> list[dict]:
    return [json.loads(line) for line in Path(workdir, "users.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_both_learn_and_llara_trains_its_projector(road):
    for name, steps in (("tallrec", 3), ("llara", 6)):
        losses = [row["train/loss"] for row in read(road.at(name))]
        assert len(losses) == steps and np.isfinite(losses).all()
    mesh, table = make_mesh(1), road.at("items.npy")
    policy = with_items(load_policy(road.llara.model, road.llara.lora, mesh, 0), table, mesh, 0)
    planned = abstract_policy(road.llara, mesh)  # what launch.plan compiles
    for a, b in ((planned.trainable, policy.trainable), (planned.frozen, policy.frozen)):
        described = (jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree) for tree in (a, b))
        assert next(described) == next(described)
    learnt = restore_trainable(road.at("llara"), policy.trainable, make_optimizer(road.llara.optimizer, 1))
    assert set(learnt) == {"lora", "projector"}
    changes = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), learnt, policy.trainable)
    assert min(jax.tree.leaves(changes["projector"])) > 1e-5


def test_every_candidate_has_a_place(road, tmp_path):
    evaluation.main(road.eval, tmp_path, False)
    dataset = prepared.load(road.at("data"))
    found = lines(tmp_path)
    assert [line["system"] for line in found] == ["llara"] * USERS + ["tallrec"] * USERS
    for line in found:
        user = line["user"]
        titles = [dataset.catalog.title[item] for item in dataset.split.candidates[user]]
        assert sorted(line["ranking"]) == sorted(titles) and line["valid"]
        assert line["ranking"].index(line["truth"]) + 1 == line["truth_rank"]
    # The table matters: with other vectors LLaRA ranks otherwise, TALLRec alike.
    config = road.eval.copy_and_resolve_references()
    config.model.item_table = str(tmp_path / "other.npy")
    np.save(config.model.item_table, 40 * np.load(road.at("items.npy"))[::-1].copy())
    evaluation.main(config, tmp_path / "other", False)
    changed = [a["ranking"] != b["ranking"] for a, b in zip(found, lines(tmp_path / "other"), strict=True)]
    assert any(changed[:USERS]) and not any(changed[USERS:])


def test_a_closed_model_needs_no_weights_but_a_key(road, fake, tmp_path, monkeypatch):  # noqa: F811
    config = road.eval.copy_and_resolve_references()
    asked = server("m", base_url=fake.url, key_variable="SOME_KEY", concurrency=2)
    config.systems = ConfigDict({"closed": system(kind="server", served=asked)})
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(UserError, match="the environment has no SOME_KEY"):
        evaluation.main(config, tmp_path / "run", False)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("SOME_KEY", "secret")
    evaluation.main(config, tmp_path / "run", False)
    assert len(fake.requests) == USERS
    evaluation.main(config, tmp_path / "again", False)
    assert len(fake.requests) == USERS and len(lines(tmp_path / "again")) == USERS
    assert "secret" not in (tmp_path / "run" / "config.json").read_text()


def test_what_does_not_fit_is_named(road, tmp_path):
    config = road.llara.copy_and_resolve_references()
    config.model.item_table = road.at("absent.npy")
    with pytest.raises(UserError, match=r"no items at .*absent.npy.*launch.baselines"):
        training.main(config, tmp_path / "run", False)
    config.model.item_table = str(tmp_path / "few.npy")
    np.save(config.model.item_table, np.ones((3, 2), np.float32))
    with pytest.raises(UserError, match=r"few.npy has 3 items but the data have \d+"):
        training.main(config, tmp_path / "run", False)
    config = road.eval.copy_and_resolve_references()
    config.systems.llara.kind = "oracle"
    with pytest.raises(
        UserError, match=r"systems.llara.kind 'oracle' is unknown: use one of policy, tallrec"
    ):
        evaluation.main(config, tmp_path / "run", False)
    for change, named in (
        ({"kind": "server", "mode": "generate"}, "a server has its own section"),
        ({"kind": "tallrec"}, "kind tallrec has neither mode nor samples"),
    ):
        config = road.eval.copy_and_resolve_references()
        config.systems.llara.update(change)
        with pytest.raises(UserError, match=named):
            evaluation.main(config, tmp_path / "run", False)
    with pytest.raises(UserError, match="trained a projector of items too"):
        restore_adapter(road.at("llara"))
    assert not (tmp_path / "run").exists()
