"""Every config file with every preset, and what all stages must have in common."""

import ast
import importlib
from pathlib import Path

import pytest

from configs import data
from configs.base import system
from r2rec_jax.prompts.wording import wording
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train.config import AGGREGATIONS

FOLDER = Path(__file__).parents[2] / "configs"
TABLES = [f"table{n}{data}" for n in (1, 2, 3) for data in ("", "_book", "_electronics")]
TABLES += ["table1_small", "table2_small"]
PRESETS = {
    "data": (None, "generated", "mini", *data.MOVIELENS, *data.PAPER, *data.AMAZON, *data.OWN),
    "sft": (None, "quickstart", "mini"),
    "grpo": (None, "quickstart", "mini"),
    "eval": (None, "quickstart", "mini", "compared"),
    "faithful": (None, "quickstart", "mini"),
    "baselines": (None, "quickstart", "mini"),
    "tallrec": (None, "quickstart"),
    "llara": (None, "quickstart"),
    "pretrain_mini": (None, "gpu"),
    "reproduce": ("quickstart", "figure5", "ml1m", "ml1m_mini", "ml1m_mini_gpu", *TABLES),
}
PLAIN = ("pretrain_tiny",)  # take no preset
BUILDS = [(name, preset) for name, presets in PRESETS.items() for preset in presets]
BASE = ("seed", "mesh", "data", "prompt", "model", "lora", "annotate")


def build(name: str, preset: str | None = None):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config() if name in PLAIN else module.get_config(preset)


def test_no_config_file_is_left_out():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "base", "combinations", "declared"}
    assert files == {*PRESETS, *PLAIN}


@pytest.mark.parametrize(("name", "preset"), [*BUILDS, *((name, None) for name in PLAIN)])
def test_every_config_builds(name, preset):
    config = build(name, preset)
    assert set(BASE) <= set(config)
    wording(config.prompt.wording)
    assert config.prompt.places <= config.data.candidates
    assert list(config.prompt.buckets) == sorted(config.prompt.buckets)
    assert build(name, preset).to_dict() == config.to_dict()


@pytest.mark.parametrize("name", PRESETS)
def test_an_unknown_preset_is_refused(name):
    with pytest.raises(UserError, match="quikstart"):
        build(name, "quikstart")


def test_reproduce_asks_for_a_preset():
    with pytest.raises(UserError, match="quickstart, figure5, ml1m"):
        build("reproduce")


@pytest.mark.parametrize(("data", "stage"), [(None, None), ("generated", "quickstart"), ("mini", "mini")])
def test_all_stages_share_the_base(data, stage):
    """What prepare and annotate write is what sft, grpo and eval read."""
    wanted = build("data", data).to_dict()
    for name in ("sft", "grpo", "eval"):
        config = build(name, stage).to_dict()
        assert {field: config[field] for field in BASE} == {field: wanted[field] for field in BASE}


@pytest.mark.parametrize("preset", PRESETS["reproduce"])
def test_the_whole_road_holds_every_stage(preset):
    config = build("reproduce", preset)
    assert (config.sft.stage, config.grpo.stage) == ("sft", "grpo")
    assert config.grpo.grpo.aggregation in AGGREGATIONS
    assert config.eval.rollout.max_tokens == config.grpo.rollout.max_tokens


def test_stages_find_each_others_folders():
    for preset in PRESETS["sft"]:
        grpo, evaluation = build("grpo", preset), build("eval", preset)
        assert evaluation.systems["sft"].adapter == grpo.train.init
        assert list(evaluation.systems) == ["base", "sft", "sft+grpo"]
        assert evaluation.systems["base"] == system(mode="likelihood" if preset == "mini" else "generate")


def test_defaults_are_the_papers():
    sft, grpo, evaluation = build("sft"), build("grpo"), build("eval")
    assert (sft.optimizer.learning_rate, grpo.optimizer.learning_rate) == (5e-5, 5e-6)
    assert sft.train.steps * sft.train.batch_size == 10 * 500 * len(sft.annotate.tasks)  # 10 epochs
    assert 500 <= grpo.train.steps * grpo.train.batch_size < 500 + grpo.train.batch_size  # 1 epoch
    assert (evaluation.rollout.temperature, evaluation.rollout.top_p) == (0.6, 0.9)
    assert evaluation.evaluate.runs == 3
    assert evaluation.data.sizes.evaluation == 1000 and evaluation.data.candidates == 20
    assert (grpo.prompt.likes, grpo.prompt.chains) == (5, 5)
    assert (grpo.reward.step_weight, grpo.reward.rank_weight) == (1.0, 2.0)
    assert tuple(grpo.reward.statements) == (3, 8)
    assert (grpo.grpo.group, grpo.grpo.beta, grpo.grpo.clip_low) == (8, 0.04, 0.2)
    assert (grpo.lora.rank, grpo.lora.alpha, len(grpo.lora.targets)) == (16, 32.0, 7)
    assert (sft.train.batch_size, grpo.train.batch_size, grpo.rollout.max_tokens) == (16, 8, 1024)


def test_pretraining_shares_no_user_with_the_quickstart():
    assert build("pretrain_tiny").data.seed != build("data", "generated").data.seed


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_every_config_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
