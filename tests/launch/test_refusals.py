"""What the commands say when something is missing or wrong: one line, and nothing is lost."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import baselines as baselines_config
from configs import grpo
from configs.base import system
from r2rec_jax.cli import required_inputs
from r2rec_jax.runs import annotation, baseline_ranking, evaluation, preparation, training
from r2rec_jax.runtime.config_diff import drift
from r2rec_jax.runtime.metric_writer import read
from tests.configs.test_configs import PRESETS, build
from tests.configs.test_declared import parsed
from tests.launch.road import ROOT, command, refused


def test_absent_inputs_are_named_with_their_commands(road, tmp_path):
    absent, workdir = str(tmp_path / "absent"), tmp_path / "run"
    prepare_line = (
        "python -m launch.prepare --config=configs/data.py:generated --config.data.generated_users=80"
    )
    annotate_line = "python -m launch.annotate --config=configs/data.py:generated "

    config = road.grpo.copy_and_resolve_references()
    config.data.folder = absent
    refused(training.main, config, workdir, f"no data at {absent}", prepare_line)
    config = road.eval.copy_and_resolve_references()
    config.systems.sft.adapter = absent
    refused(
        evaluation.main, config, workdir, f"no adapter at {absent}", "launch.train --config=configs/sft.py"
    )
    config = road.sft.copy_and_resolve_references()
    config.annotate.folder = absent
    refused(training.main, config, workdir, f"no traces at {absent}", annotate_line)
    config = road.data.copy_and_resolve_references()
    config.data.folder = absent
    refused(annotation.main, config, workdir, f"no data at {absent}", prepare_line)


@pytest.mark.parametrize(("command", "file"), [("prepare", "data"), ("annotate", "data"), ("train", "sft")])
@pytest.mark.parametrize(
    ("name", "preset", "changes"),
    [
        ("grpo", None, {}),
        ("grpo", "mini", {"data.seed": 3, "prompt.wording": "movies"}),
        ("eval", "quickstart", {"annotate.tasks": ("rating", "ranking"), "data.sizes.sft": 7}),
        ("sft", None, {"data.source": "table", "data.raw": "data/mine", "data.table.user": "the customer"}),
        ("grpo", None, {"data.source": "amazon-2023", "data.raw": "x", "data.category": "Toys_and_Games"}),
    ],
)
def test_the_command_named_makes_what_is_missing(command, file, name, preset, changes):
    """What it says is read again, by a shell and by the flags: the same settings of what it makes."""
    config = build(name, preset)
    config.update_from_flattened_dict(changes)
    line = shlex.split(required_inputs.command_for(command, file, config, "runs/a b"))
    assert line[:3] == ["python", "-m", f"launch.{command}"] and line[-1] == "--workdir=runs/a b"
    found = parsed(line[3].replace("=", f"={ROOT}/"), *line[4:-1])
    for section in required_inputs.MADE_FROM[command]:
        theirs, ours = ({section: c[section]} for c in (found, config))
        assert (
            drift(*(ConfigDict(one).to_dict() for one in (theirs, ours)), ignored=("folder", "workers")) == []
        )


def test_every_preset_may_be_named():
    for file, presets in required_inputs.PRESETS.items():
        assert {preset or "" for preset in presets} | {""} == {preset or "" for preset in PRESETS[file]} | {
            ""
        }


def test_several_absent_inputs_make_one_line(road, tmp_path):
    config = road.grpo.copy_and_resolve_references()
    config.data.folder, config.model.folder = str(tmp_path / "data"), str(tmp_path / "model")
    named = ["no model at", "set it to the folder of a Hugging Face Llama", "no data at", "launch.prepare"]
    refused(training.main, config, tmp_path / "run", *named)


def test_a_data_folder_that_is_none_is_refused(road, tmp_path):
    config = road.grpo.copy_and_resolve_references()
    config.data.folder = str(tmp_path)
    refused(training.main, config, tmp_path / "run", "holds no prepared data set", "launch.prepare")


def test_more_tokens_than_positions_are_refused(road, tmp_path):
    """512 of the model; the prompts' bucket holds 256."""
    config = road.sft.copy_and_resolve_references()
    config.train.response_buckets = (64, 257)
    named = "prompt.buckets up to 256", "train.response_buckets up to 257", "the 512 positions"
    refused(training.main, config, tmp_path / "run", *named)
    config = road.grpo.copy_and_resolve_references()
    config.rollout.max_tokens = 257
    refused(training.main, config, tmp_path / "run", "rollout.max_tokens up to 257", "the 512 positions")
    config = road.eval.copy_and_resolve_references()
    config.systems.base.prompt = {"buckets": (512,)}
    refused(evaluation.main, config, tmp_path / "run", "systems.base.prompt.buckets up to 512")


@pytest.mark.parametrize("folder", ["absent", ""])
def test_templates_need_no_model(road, tmp_path, folder):
    """Without its tokenizer nothing is measured, and traces that fit are the same."""
    config = road.data.copy_and_resolve_references()
    config.model.folder = folder and str(tmp_path / folder)
    annotation.main(config, tmp_path / "run", False)
    theirs = (Path(road.at("annotate")) / "traces.jsonl").read_bytes().splitlines()
    ours = (tmp_path / "run" / "traces.jsonl").read_bytes().splitlines()
    assert len(ours) >= len(theirs) > 0 and set(ours) & set(theirs)
    config.annotate.teacher = "openai"
    refused(annotation.main, config, tmp_path / "other", "no model at")


def test_unknown_choices_are_refused(road, tmp_path):
    config = road.grpo.copy_and_resolve_references()
    config.grpo.aggregation = "mean"
    refused(training.main, config, tmp_path / "run", "'mean'", "sequence_mean")
    config.grpo.aggregation = "token_mean"
    config.rollout.chunk = 0
    refused(training.main, config, tmp_path / "run", "rollout.chunk=0", "a whole number from 1 to")
    config.stage = "dpo"
    refused(training.main, config, tmp_path / "run", "'dpo'", "pretrain, sft, grpo, tallrec, llara")
    config = road.data.copy_and_resolve_references()
    config.annotate.tasks = ("ranking", "poem")
    refused(annotation.main, config, tmp_path / "run", "poem", "rating, ranking")


def _prepared(road, folder, **sizes):
    """The road's data with other sizes, in another folder."""
    data = road.data.copy_and_resolve_references()
    data.data.folder = str(folder)
    data.data.sizes.update(sizes)
    preparation.main(data, folder, False)
    return str(folder)


def test_what_a_run_lacks_is_found_before_its_workdir_is_claimed(road, tmp_path):
    run = tmp_path / "run"
    sft = road.sft.copy_and_resolve_references()
    sft.train.response_buckets = (4, 8)
    refused(training.main, sft, run, "traces.jsonl: trace 1: a response of", "train.response_buckets=(4, 8)")
    sft.train.update({"response_buckets": (256,), "batch_size": 16})
    refused(training.main, sft, run, "train.batch_size=16 is more than the ", "traces of", "lower it")
    sft.train.batch_size, sft.prompt.buckets = 4, (16,)
    refused(training.main, sft, run, "a prompt of", "prompt.buckets=(16,)")

    grpo = road.grpo.copy_and_resolve_references()
    grpo.train.batch_size = 6
    refused(training.main, grpo, run, "train.batch_size=6 is more than the 5 GRPO users of")
    grpo.train.batch_size, grpo.prompt.buckets = 2, (16,)
    refused(training.main, grpo, run, "the candidates of user", "prompt.buckets (16,) allow")
    grpo.prompt.update({"buckets": (256,), "chains": 13})
    refused(training.main, grpo, run, "prompt.chains=13", "wording 'compact' has names for")
    grpo.prompt.chains, grpo.rollout.constrained, grpo.rollout.max_tokens = 1, True, 2
    refused(training.main, grpo, run, "an answer may need", "rollout.max_tokens is 2")

    evaluated = road.eval.copy_and_resolve_references()
    evaluated.prompt.buckets = (16,)
    refused(evaluation.main, evaluated, run, "the candidates of user", "prompt.buckets (16,) allow")
    evaluated.prompt.buckets = (256,)
    evaluated.systems.base.mode, evaluated.rollout.max_tokens = "constrained", 2
    refused(evaluation.main, evaluated, run, "an answer may need", "rollout.max_tokens is 2")


def test_a_run_without_validation_users_watches_nothing(road, tmp_path):
    config = road.grpo.copy_and_resolve_references()
    config.data.folder = _prepared(road, tmp_path / "data", validation=0)
    refused(training.main, config, tmp_path / "run", "has no validation users", "train.best_metric to ''")
    config.train.best_metric = ""
    training.main(config, tmp_path / "run", False)
    rows = read(tmp_path / "run")
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2]
    assert not any(name.startswith("validation/") for row in rows for name in row)


def test_groups_without_users_are_named(road, tmp_path):
    empty = _prepared(road, tmp_path / "data", sft=0, evaluation=0)
    config = road.data.copy_and_resolve_references()
    config.data.folder = empty
    refused(annotation.main, config, tmp_path / "run", f"{empty} has no SFT users", "data.sizes.sft")
    config = baselines_config.get_config("quickstart")
    config.data.folder = empty
    refused(baseline_ranking.main, config, tmp_path / "run", f"{empty} has no evaluation users")


def test_a_baseline_that_cannot_be_fitted_is_named_before_the_others_run(road, tmp_path):
    config = baselines_config.get_config("quickstart")
    config.data.folder = road.at("data")
    config.newest = {"module": "newest"}
    config.systems = ("popularity", "newest")
    refused(
        baseline_ranking.main, config, tmp_path / "run", "newest.module='newest': use one of random_order, "
    )
    config.systems = ("popularity", "sasrec")
    alone = _prepared(road, tmp_path / "data", sft=0, grpo=0, validation=0)
    config.data.folder = alone
    refused(baseline_ranking.main, config, tmp_path / "run", "needs users who are not evaluated")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"systems.sft.kind": "oracle"}, "systems.sft.kind 'oracle' is unknown: use one of policy"),
        ({"systems.sft.mode": "guess"}, "mode 'guess' of a system is unknown: use one of generate"),
        ({"systems.sft.prompt.chain": 2}, "systems.sft.prompt.chain is unknown: use one of answer, "),
        ({"systems.sft.prompt.chains": "two"}, "systems.sft.prompt.chains='two': use a whole number from 0"),
        ({"rollout.temperature": 0.0}, "systems.sft+grpo.samples=3 would all be equal"),
        ({"evaluate.runs": 0}, "evaluate.runs=0"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(road, tmp_path, changes, named):
    config = road.eval.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    refused(evaluation.main, config, tmp_path / "run", named)


def test_results_of_other_candidates_are_refused(road, tmp_path):
    shutil.copytree(road.at("eval"), tmp_path / "run")
    path = tmp_path / "run" / "users.jsonl"
    path.write_text(re.sub('"candidates": "[0-9a-f]+"', '"candidates": "0123456789ab"', path.read_text()))
    before = path.read_bytes()
    refused(evaluation.main, road.eval, tmp_path / "run", "ranks candidates 0123456789ab", "--overwrite")
    assert path.read_bytes() == before


def test_greedy_decoding_is_run_once_and_nobody_is_no_evaluation(road, tmp_path):
    config = road.eval.copy_and_resolve_references()
    config.systems, config.rollout.temperature = {"base": system()}, 0.0
    assert evaluation.evaluate(config, tmp_path / "greedy", False)["base"]["runs"] == 1
    shutil.copytree(road.at("data"), tmp_path / "data")
    data = road.data.copy_and_resolve_references()
    data.data.update({"folder": str(tmp_path / "data")})
    data.data.sizes.evaluation = 0
    preparation.main(data, tmp_path / "data", True)
    config.data.folder = str(tmp_path / "data")
    refused(evaluation.main, config, tmp_path / "none", "has no evaluation users")


def test_the_mini_model_is_trained_not_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ["no model at runs/mini/pretrain/model", "pretrain_mini.py --workdir=runs/mini/pretrain`"]
    named += ["no data at runs/mini/seed0/data", "configs/data.py:mini --workdir=runs/mini/seed0/data`"]
    named += [
        "no adapter at runs/mini/seed0/sft/checkpoints",
        "configs/sft.py:mini --workdir=runs/mini/seed0/sft`",
    ]
    refused(training.main, grpo.get_config("mini"), tmp_path / "none", *named)


def test_prepared_data_are_not_overwritten_unasked(road):
    config = road.data.copy_and_resolve_references()
    config.data.candidates -= 1
    refused(preparation.main, config, Path(road.at("data")), "--overwrite")


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ("grpo", ["no model at models/", "no data at", "launch.prepare", "no adapter at", "configs/sft.py"]),
        ("sft", ["no model at models/", "hf download", "no traces at", "launch.annotate"]),
    ],
)
def test_the_default_config_with_nothing_present(tmp_path, stage, named):
    done = command("train", f"--config={ROOT}/configs/{stage}.py", "--workdir=runs/a", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for text in named:
        assert text in done.stderr
    assert not any(tmp_path.iterdir())


def test_the_workdir_of_another_config_is_refused(road, tmp_path):
    """The run's own config, one field changed, in a process."""
    before = sorted(Path(road.at("data"), "..", "annotate").resolve().rglob("*"))
    done = command(
        "annotate",
        f"--config={ROOT}/configs/data.py:generated",
        f"--config.data.folder={road.at('data')}",
        f"--config.model.folder={road.at('model')}",
        f"--workdir={road.at('annotate')}",
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "belongs to another config" in done.stderr and "--overwrite" in done.stderr
    assert sorted(Path(road.at("annotate")).resolve().rglob("*")) == before
