"""The commands from ratings to metrics on a random model."""

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from r2rec_jax.data import prepared
from r2rec_jax.metrics.system_metrics import measure
from r2rec_jax.model.architecture import load_config
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.pipeline.batches import collate
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rank import policy_ranker
from r2rec_jax.rank.results import UserLines
from r2rec_jax.runs import evaluation, supervised_stages, training
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metric_writer import read
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train.grpo import GRPOStep
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import restore_trainable
from tests.launch.road import SIZES, command, lines, refused, untimed


def test_prepared_data_have_the_groups_asked_for(road):
    dataset = prepared.load(road.at("data"))
    assert {name: len(users) for name, users in dataset.split.users.items()} == SIZES


def test_every_sft_user_is_annotated_for_every_task(road):
    traces = lines(road.at("annotate"), "traces.jsonl")
    assert {trace["task"] for trace in traces} == {"rating", "ranking"}
    users = prepared.load(road.at("data")).split.users["sft"].tolist()
    assert [trace["user"] for trace in traces if trace["task"] == "ranking"] == users
    assert all(set(trace) == {"user", "task", "prompt", "reasoning", "answer"} for trace in traces)


def test_sft_writes_checkpoints_and_metrics(road):
    written = read(road.at("sft"))
    assert [row["step"] for row in written] == [1, 2, 3]
    assert all(np.isfinite(row["train/loss"]) for row in written)
    assert all(0 < row["train/tokens_per_s"] < 1e9 for row in written)
    assert all(0 < row["train/mfu"] < 1 and "train/seconds_at_peak" not in row for row in written)
    assert Path(road.at("sft"), "checkpoints", "3").is_dir()


def test_grpo_writes_rewards_samples_and_validation(road):
    written = read(road.at("grpo"))
    steps = [row for row in written if "train/loss" in row]
    assert [row["step"] for row in steps] == [1, 2]
    names = (
        "train/reward train/kl train/entropy train/sampler_logprob_gap train/grad_norm train/skipped_count "
    )
    names += "train/clip_fraction_low train/clip_fraction_high "
    names += (
        "reward/step reward/rank reward/zero_variance_fraction rollout/valid_rate rollout/truncation_rate "
    )
    names += (
        "reward/failed_count rollout/statements rollout/length_mean rollout/length_p10 rollout/length_p50 "
    )
    names += (
        "rollout/length_p90 rollout/length_max rollout/token_count rollout/tokens_per_s update/tokens_per_s "
    )
    names += "time/input_s time/rollout_s time/reward_s time/update_s time/step_s "
    names += "update/mfu memory/host_peak_gb"
    assert set(names.split()) <= set(steps[0])
    assert steps[0]["train/kl"] == pytest.approx(0, abs=1e-6)  # it starts at the SFT adapter
    assert steps[0]["train/sampler_logprob_gap"] < 1e-3  # sampler and trainer agree
    validation = [row["step"] for row in written if "validation/reward" in row]
    assert validation == [0, 2]
    samples = lines(road.at("grpo"), "samples.jsonl")
    assert [sample["step"] for sample in samples] == [1, 1, 2, 2]
    shown = {"step", "user", "user_id", "reward", "parts", "truth_rank", "reasoning", "answer"}
    assert set(samples[0]) == shown
    ids = prepared.load(road.at("data")).catalog.user_ids
    assert all(sample["user_id"] == ids[sample["user"]] for sample in samples)
    assert {"reward", "hr@1", "ndcg@3", "step", "rank", "failed_count", "valid_rate"} <= {
        name.removeprefix("validation/") for name in written[0]
    }


def test_grpo_interrupted_and_resumed_is_uninterrupted(road, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return sample(*args, **kwargs)

    sample = GRPOStep.sample

    with monkeypatch.context() as patch:
        patch.setattr(GRPOStep, "sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.main(road.grpo, tmp_path, False)
    assert [row["step"] for row in read(tmp_path)] == [0, 1]
    training.main(road.grpo, tmp_path, False)
    whole = Path(road.at("grpo"))
    assert untimed(tmp_path) == untimed(whole)
    assert lines(tmp_path, "samples.jsonl") == lines(whole, "samples.jsonl")
    rank, targets = road.grpo.lora.rank, tuple(road.grpo.lora.targets)
    model = Llama(load_config(road.at("model")), LoRAConfig(rank, road.grpo.lora.alpha, targets))
    like = jax.eval_shape(lambda: {"lora": init_variables(model, 0)["lora"]})
    optimizer = make_optimizer(road.grpo.optimizer, 1)
    states = [restore_trainable(folder, like, optimizer) for folder in (tmp_path, whole)]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_finished_run_goes_on_where_its_steps_are_raised(road, tmp_path):
    shutil.copytree(road.at("sft"), tmp_path / "run")
    config = road.sft.copy_and_resolve_references()
    config.train.steps = 5
    training.main(config, tmp_path / "run", False)
    assert [row["step"] for row in read(tmp_path / "run")] == [1, 2, 3, 4, 5]
    assert untimed(tmp_path / "run")[:3] == untimed(road.at("sft"))
    assert sorted(int(path.name) for path in (tmp_path / "run/checkpoints").glob("[0-9]*"))[-2:] == [3, 5]
    assert json.loads((tmp_path / "run/config.json").read_text())["train"]["steps"] == 5
    config.train.steps = 4
    refused(
        training.main, config, tmp_path / "run", "train.steps (5 there, 4 here)", "can be raised, not lowered"
    )


def test_sft_that_is_not_finite_ends_with_its_batch(road, tmp_path, monkeypatch):
    config = road.sft.copy_and_resolve_references()
    config.train.update({"steps": 9, "stop_after_skipped": 2})

    def spoilt(*args):
        batch = collate(*args)
        batch.response_mask[0, 0] = np.nan
        return batch

    monkeypatch.setattr(supervised_stages, "collate", spoilt)
    refused(training.main, config, tmp_path, "skipped-2.npz", "no checkpoint yet")
    with np.load(tmp_path / "skipped-2.npz") as saved:
        assert {*saved} == {"prompt", "prompt_length", "response", "response_mask"}
        assert np.isnan(saved["response_mask"]).sum() == 1


def test_grpo_that_is_not_finite_ends_with_its_batch(road, tmp_path, monkeypatch):
    config = road.grpo.copy_and_resolve_references()
    config.train.update({"steps": 9, "stop_after_skipped": 2, "evaluate_every": 100, "checkpoint_every": 2})
    given = []

    def spoilt(*args, **kwargs):
        batch = make_batch(*args, **kwargs)
        batch.advantage[1] = np.nan if len(given) > 1 else 0
        given.append(batch)
        return batch

    make_batch = GRPOStep.make_batch
    monkeypatch.setattr(GRPOStep, "make_batch", spoilt)
    refused(
        training.main, config, tmp_path, f"batch is in {tmp_path}/skipped-4.npz", "checkpoint is of step 2"
    )
    assert [row["train/skipped_count"] for row in read(tmp_path) if "train/loss" in row] == [0, 0, 1, 1]
    with np.load(tmp_path / "skipped-4.npz") as saved:
        np.testing.assert_array_equal(saved["advantage"], given[3].advantage)
        np.testing.assert_array_equal(saved["sampler_logprobs"], given[3].sampler_logprobs)
        for name in ("prompt", "prompt_length", "response", "response_mask"):
            np.testing.assert_array_equal(saved[f"completions.{name}"], getattr(given[3].completions, name))


def test_grpo_pays_the_same_in_workers_and_a_function_of_ones_own(road, tmp_path, monkeypatch):
    (tmp_path / "own_lengths.py").write_text(
        "def chars(record, said, config):\n    return {'chars': len(said.reasoning)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = road.grpo.copy_and_resolve_references()
    config.reward.update({"workers": 2, "timeout_s": 60.0})
    training.main(config, tmp_path / "run", False)
    assert untimed(tmp_path / "run") == untimed(road.at("grpo"))
    config.reward.extra = ("own_lengths:chars",)
    config.train.steps = 1
    training.main(config, tmp_path / "own", False)
    before, step, after = read(tmp_path / "own")
    assert before["validation/chars"] > 0 and after["validation/chars"] > 0
    weighted = step["reward/step"] + 2 * step["reward/rank"] + step["reward/chars"]
    assert step["train/reward"] == pytest.approx(weighted) and step["reward/failed_count"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_nothing_is_compiled_after_the_first_step(road, tmp_path, monkeypatch, stage):
    """Nor after the first step of a resumed run."""
    config = getattr(road, stage).copy_and_resolve_references()
    config.train.update({"steps": 5, "evaluate_every": 2, "checkpoint_every": 2})
    if stage == "grpo":
        config.grpo.updates_per_rollout = 2
    compiled: list[list[str]] = []  # names of programs; before the first step, in the first step, ...
    interrupt_at = 3

    class Noted(Phases):
        def __call__(self, name):
            if name == "input":
                compiled.append([])
                if len(compiled) == interrupt_at + 1:
                    os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(name)

    def note(event, _, *, fun_name="", **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled[-1].append(fun_name)

    def compiles():
        compiled[:] = [[]]
        with contextlib.suppress(KeyboardInterrupt):
            training.main(config, tmp_path, False)
        return compiled

    for module in (training, supervised_stages):
        monkeypatch.setattr(module, "Phases", Noted)
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        _, first, *later = compiles()
        assert first.count("jit(placed_step)") == 1 and later == [[], []]
        interrupt_at = 99
        _, first, *later = compiles()
        assert first.count("jit(placed_step)") == 1 and later == [[]]
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def test_a_trace_shows_the_phases(road, tmp_path):
    config = road.grpo.copy_and_resolve_references()
    config.profile.steps = "2:3"
    training.main(config, tmp_path, False)
    (path,) = tmp_path.glob("trace/**/*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    events = {event.name for plane in planes for line in plane.lines for event in line.events}
    assert {"input", "rollout", "reward", "update"} <= events
    content = path.read_bytes()
    assert all(scope in content for scope in (b"prefill", b"decode", b"loss_and_gradient"))


@pytest.mark.slow
def test_workers_train_the_same_adapters(road, tmp_path):
    """The real command, which its workers import anew."""
    for stage in ("sft", "grpo"):
        config = road.__dict__[stage].copy_and_resolve_references()
        config.data.workers = 2
        file = tmp_path / f"{stage}.py"
        code = f"def get_config():\n    return ConfigDict({config.to_dict()})\n"
        file.write_text(f"from ml_collections import ConfigDict\n{code}")
        done = command("train", f"--config={file}", f"--workdir={tmp_path / stage}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "leaked" not in done.stderr
        assert untimed(tmp_path / stage) == untimed(Path(road.at(stage)))


def test_metrics_hold_every_system_on_every_user(road):
    report = json.loads(Path(road.at("eval"), "metrics.json").read_text())
    assert set(report) == {"users", "candidates_sha256", "seed", "systems", "paired"}
    assert (report["users"], report["seed"]) == (SIZES["evaluation"], road.eval.seed)
    dataset = prepared.load(road.at("data"))
    assert report["candidates_sha256"] == prepared.candidates_hash(dataset.split)
    assert list(report["systems"]) == ["base", "sft", "sft+grpo"]
    measured = {*measure(dataset, dataset.split.users["evaluation"], np.ones((1, 5), int), 0)}
    rates = {"valid_rate", "truncation_rate", "statements", "reward", "failed_rewards", "wall_s"}
    rates |= {"dropped_chains", "dropped_likes", "lenient"}
    for name, row in report["systems"].items():
        assert set(row) == measured | rates, name
        assert (row["users"], row["runs"]) == (SIZES["evaluation"], 2)
        rows = [line for line in lines(road.at("eval"), "users.jsonl") if line["system"] == name]
        hits = [line["valid"] and line["ranking"][0] == line["truth"] for line in rows]
        assert row["hr@1"] == pytest.approx(np.mean(hits))
        loose = [bool(line["ranking"]) and line["ranking"][0] == line["truth"] for line in rows]
        assert row["lenient"]["hr@1"] == pytest.approx(np.mean(loose))
    assert report["systems"]["sft"]["valid_rate"] == 1  # by likelihood, whatever it says
    assert list(report["paired"]) == ["sft - base", "sft+grpo - base", "sft+grpo - sft"]
    assert set(report["paired"]["sft - base"]) == {"reward", "hr@1", "ndcg@3"}


def test_users_are_listed_in_order_for_every_policy_and_run(road):
    dataset = prepared.load(road.at("data"))
    users = dataset.split.users["evaluation"].tolist()
    listed = lines(road.at("eval"), "users.jsonl")
    assert [(line["system"], line["run"], line["user"]) for line in listed] == [
        (system, run, user) for system in ("base", "sft", "sft+grpo") for run in (0, 1) for user in users
    ]
    for line in listed:
        assert ("prompt" in line) == (line["run"] == 0)
        assert line["truth"] in line.get("prompt", line["truth"])
        ranked = line["ranking"]
        named = ranked.index(line["truth"]) + 1 if line["truth"] in ranked else 0
        assert (line["truth_rank"], line["lenient_rank"]) == (named if line["valid"] else 0, named)
        ids = dataset.catalog.item_ids
        assert line["user_id"] == dataset.catalog.user_ids[line["user"]]
        assert line["truth_id"] == ids[dataset.split.truth[line["user"]]]
        titles = [dataset.catalog.title[dataset.find_item(one)] for one in line["ranking_ids"] if one]
        assert titles == [title for title in ranked if title]
    by_likelihood = [line for line in listed if line["system"] == "sft"]
    assert all(len(line["ranking"]) == 20 for line in by_likelihood)
    base, sft, bare = (
        [line["prompt"] for line in listed if line["system"] == name and line["run"] == 0]
        for name in road.eval.systems
    )
    assert base == sft  # asked alike
    assert all(len(without) < len(one) for without, one in zip(bare, base, strict=True))  # its chains: 0


def test_results_of_another_adapter_are_not_gone_on_with(road, tmp_path):
    """As where its training was made longer between two calls of the same command."""
    shutil.copytree(road.at("eval"), tmp_path / "eval")
    record = tmp_path / "eval" / "inputs.json"
    inputs = json.loads(record.read_text())
    assert list(inputs) == [name for name, system in road.eval.systems.items() if system.adapter]
    evaluation.main(road.eval, tmp_path / "eval", False)  # the same adapters: nothing is left to do
    record.write_text(json.dumps(inputs | {"sft": inputs["sft"] ^ 1}))
    with pytest.raises(UserError, match="another adapter of sft than the present one"):
        evaluation.main(road.eval, tmp_path / "eval", False)


def test_an_evaluation_interrupted_and_resumed_is_uninterrupted(road, tmp_path, monkeypatch):
    """Wherever it was cut off, also within a line and within a user's runs."""
    monkeypatch.setattr(policy_ranker, "FILLS", 2)  # several blocks
    config = road.eval.copy_and_resolve_references()

    class Seen(UserLines):
        def append(self, *args, **more):
            super().append(*args, **more)
            copies.append(self.path.read_bytes())

    copies: list[bytes] = []
    monkeypatch.setattr(evaluation, "UserLines", Seen)
    evaluation.main(config, tmp_path / "whole", False)
    monkeypatch.setattr(evaluation, "UserLines", UserLines)
    assert len(copies) == 3 * 2 * SIZES["evaluation"]
    for end in (7, 23):
        workdir = tmp_path / f"cut{end}"
        workdir.mkdir()
        (workdir / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
        (workdir / "users.jsonl").write_bytes(copies[end][:-9])
        evaluation.main(config, workdir, False)
        assert timeless(workdir) == timeless(tmp_path / "whole")


def timeless(workdir: Path) -> tuple[dict, list[dict]]:
    """An evaluation's two files without the seconds in them."""
    report, listed = json.loads((workdir / "metrics.json").read_text()), lines(workdir, "users.jsonl")
    for row in (*report["systems"].values(), *listed):
        row.pop("wall_s", None)
    return report, listed


def test_a_finished_stage_run_again_changes_nothing(road):
    before = {p: p.stat().st_mtime_ns for p in Path(road.at("sft"), "checkpoints").rglob("*")}
    written = read(road.at("sft"))
    training.main(road.sft, Path(road.at("sft")), False)
    assert read(road.at("sft")) == written
    assert {p: p.stat().st_mtime_ns for p in Path(road.at("sft"), "checkpoints").rglob("*")} == before


def test_the_chat_of_the_folder_reads_its_own_traces(road):
    chat = Chat(road.at("model"))
    for trace in lines(road.at("annotate"), "traces.jsonl"):
        assert chat.split(chat.completion(trace["reasoning"], trace["answer"])) == (
            trace["reasoning"],
            trace["answer"],
        )
