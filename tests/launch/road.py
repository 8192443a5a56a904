"""Every command's config, shrunk to run in seconds, and the road that they make together."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import data as data_config
from configs import eval as eval_config
from configs import grpo as grpo_config
from configs import sft as sft_config
from configs.base import system
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.huggingface import save_params
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.prompts.corpus import Corpus
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.runs import annotation, evaluation, preparation, training
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metric_writer import read

ROOT = Path(__file__).parents[2]
CACHE = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax")}
SIZES = {"sft": 6, "grpo": 5, "validation": 3, "evaluation": 5}


class Road:
    """Configs of every stage, shrunk, with all folders below `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.data = self.shrink(data_config.get_config("generated"))
        self.sft = self.shrink(sft_config.get_config("quickstart"))
        self.sft.train.update({"steps": 3, "batch_size": 4, "response_buckets": (256,)})
        self.grpo = self.shrink(grpo_config.get_config("quickstart"))
        self.grpo.train.update({"steps": 2, "batch_size": 2, "init": self.at("sft")})
        self.grpo.grpo.group = 2
        self.grpo.evaluate.batch_size = 2
        self.grpo.rollout.update({"max_tokens": 8, "chunk": 8})
        self.eval = self.shrink(eval_config.get_config("quickstart"))
        self.eval.systems = {"base": system(), "sft": system(self.at("sft"), mode="likelihood")}
        self.eval.systems["sft+grpo"] = system(self.at("grpo"), samples=3, prompt={"chains": 0})
        self.eval.evaluate.update({"batch_size": 2, "runs": 2})
        self.eval.rollout.update({"max_tokens": 8, "chunk": 8})

    def at(self, name: str) -> str:
        return str(self.folder / name)

    def shrink(self, config):
        config.data.update({"folder": self.at("data"), "generated_users": 80})
        config.data.sizes.update(SIZES)
        config.prompt.update({"likes": 2, "chains": 1, "buckets": (256,)})
        config.model.folder = self.at("model")
        config.lora.rank = 2
        config.annotate.update({"folder": self.at("annotate"), "tasks": ("rating", "ranking")})
        config.annotate.max_tokens = 256
        return config


def make_inputs(folder: Path) -> Road:
    """What training needs: a model whose weights are random, data, and traces."""
    road = Road(folder)
    dataset = make_dataset(road.data.data)
    corpus = Corpus(dataset.interactions, dataset.catalog, build_graph(dataset))
    rng = np.random.default_rng(0)
    tokenizer = train_tokenizer([corpus.document(rng, 20).text for _ in range(200)], 600)
    config = LlamaConfig(tokenizer.get_vocab_size(), 16, 24, 1, 2, 1, 8, 1e-5, 1000.0, None, 512, False)
    params = jax.jit(lambda: init_variables(Llama(config), 0)["params"])()
    save_params(road.at("model"), config, params, files={"tokenizer.json": tokenizer.to_str()})

    preparation.main(road.data, Path(road.at("data")), False)
    annotation.main(road.data, Path(road.at("annotate")), False)
    return road


def make_road(folder: Path) -> Road:
    """Every stage run once in this process."""
    road = make_inputs(folder)
    training.main(road.sft, Path(road.at("sft")), False)
    training.main(road.grpo, Path(road.at("grpo")), False)
    evaluation.main(road.eval, Path(road.at("eval")), False)
    return road


def lines(*path) -> list[dict]:
    return [json.loads(line) for line in Path(*path).read_text(encoding="utf-8").splitlines()]


def untimed(workdir) -> list[dict]:
    timed = re.compile("time/.*|memory/.*|.*_per_s|.*/mfu")
    return [{name: row[name] for name in row if not timed.fullmatch(name)} for row in read(workdir)]


def command(name: str, *flags, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", f"launch.{name}", *flags],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | CACHE,
        capture_output=True,
        text=True,
    )


def refused(main, config, workdir, *named, overwrite=False) -> None:
    """The command ends in one line that holds every one of `named`, and leaves no workdir behind."""
    existed = workdir.exists()
    with pytest.raises(UserError) as caught:
        main(config, workdir, overwrite)
    assert "\n" not in str(caught.value)
    for text in named:
        assert text in str(caught.value)
    assert workdir.exists() == existed
