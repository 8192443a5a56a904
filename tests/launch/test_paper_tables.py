"""The paper's tables: what is run for them, what is not run again, and what they say of what cannot be."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from configs import reproduce as reproduce_config
from configs.base import system as system_of
from r2rec_jax.data import prepared
from r2rec_jax.metrics.system_metrics import measure
from r2rec_jax.rank.results import UserLines, write_metrics
from r2rec_jax.runs import baseline_ranking, paper_tables, report_pages, reproduction, stages
from r2rec_jax.runtime.errors import UserError
from tests.launch.road import ROOT


def config(preset: str, tmp_path: Path, weights: bool = False):
    c = reproduce_config.get_config(preset)
    c.data.update({"source": "generated", "generated_users": 80})
    c.data.sizes.update({"sft": 6, "grpo": 5, "validation": 3, "evaluation": 12})
    c.baselines.systems = ("random_order", "popularity")
    c.seeds, c.policy_seeds = (0, 3), (3,)
    c.model.folder = str(tmp_path / "model")
    if weights:
        (tmp_path / "model").mkdir()
        shutil.copy(ROOT / "models/tiny-llama/config.json", tmp_path / "model")
    return c


def rows(workdir: Path, table: str) -> dict[str, dict]:
    return {row["system"]: row for row in json.loads((workdir / f"{table}.json").read_text())["rows"]}


def test_without_weights_and_key_the_others_are_measured(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    c, workdir = config("table1_small", tmp_path), tmp_path / "run"
    reproduction.main(c, workdir, False)
    found = rows(workdir, "table1")
    truth_ranks = []
    for seed in (0, 3):
        lines = (workdir / f"seed{seed}/baselines/users.jsonl").read_text().splitlines()
        ranked = [line for line in map(json.loads, lines) if line["system"] == "popularity"]
        truth_ranks += [line["truth_rank"] for line in ranked]
    assert found["popularity"]["hr@1"] == pytest.approx(np.mean(np.array(truth_ranks) == 1))
    assert (found["popularity"]["seeds"], found["popularity"]["users"]) == ([0, 3], 24)
    needs = {name: row["missing"] for name, row in found.items() if row["hr@1"] is None}
    assert needs["gpt-4o-mini"] == "needs OPENAI_API_KEY" and needs["ease"] == "not run yet"
    assert needs["r2rec"] == needs["tallrec"] == f"needs the weights in {c.model.folder}"
    assert needs["gpt-4o-mini"].replace("_", "\\_") in (workdir / "table1.md").read_text()
    assert needs["r2rec"] in (workdir / "table1.html").read_text()
    # The seeds differ in their users, and nothing is done again.
    hashes = {
        json.loads((workdir / f"seed{s}/data/manifest.json").read_text())["candidates_sha256"] for s in (0, 3)
    }
    assert len(hashes) == 2
    written = {path: path.stat().st_mtime_ns for path in workdir.glob("seed*/**/*") if path.is_file()}
    reproduction.main(c, workdir, False)
    assert written == {path: path.stat().st_mtime_ns for path in workdir.glob("seed*/**/*") if path.is_file()}


@pytest.fixture
def done(monkeypatch) -> list[tuple]:
    """What the stages with a model are asked, in order; they leave what others look for."""
    done = []

    def annotate(_, folder, __):
        done.append((folder.name, ""))
        folder.mkdir()
        (folder / "traces.jsonl").touch()

    def train(c, folder, _):
        done.append((folder.name, Path(c.train.init).name if "init" in c.train else ""))
        folder.mkdir(exist_ok=True)

    def evaluate(c, folder, _):
        dataset = prepared.load(c.data.folder)
        users, lines = dataset.split.users["evaluation"], UserLines(folder, dataset)
        for name, system in c.systems.items():
            done.append((name, Path(system.adapter).name, *sorted(system.prompt.items())))
            for k, user in enumerate(users):
                lines.append(name, 0, user, 0, statements=3 + k % 4, reasoning="", ranking=[], prompt="")
        rated = {"valid_rate": 0.5, "wall_s": 2.0}
        systems = {name: measure(dataset, users, lines.ranks(name, users), 0) | rated for name in c.systems}
        write_metrics(folder, dataset, len(users), c.seed, systems, {})

    monkeypatch.setattr(stages.annotation, "main", annotate)
    monkeypatch.setattr(stages.training, "main", train)
    monkeypatch.setattr(stages.evaluation, "evaluate", evaluate)
    monkeypatch.setattr("r2rec_jax.runs.report_pages._cases", lambda *_: [])
    return done


def test_one_run_has_its_stages_in_order(tmp_path, done):
    c = config("figure5", tmp_path, weights=True)
    reproduction.main(c, tmp_path / "run", False)
    assert done[:4] == [("annotate", ""), ("sft", ""), ("grpo", "sft"), ("grpo_alone", "")]
    adapters = {
        "prompt only": "",
        "r2rec without rl": "sft",
        "r2rec without sft": "grpo_alone",
        "r2rec": "grpo",
    }
    assert set(done[4:]) == set(adapters.items())
    assert set(rows(tmp_path / "run", "report")) == {*adapters, "random_order", "popularity"}
    page = (tmp_path / "run/report.html").read_bytes()
    assert b"HR@1 by length of the reasoning" in page and b"HR@1 by popularity" in page
    with pytest.raises(UserError, match=r"report\.html already exists: add --overwrite"):
        report_pages.main(c, tmp_path / "run", False)
    report_pages.main(c, tmp_path / "run", True)
    assert (tmp_path / "run/report.html").read_bytes() == page
    with pytest.raises(UserError, match="no evaluation in"):
        report_pages.main(c, tmp_path / "nothing", False)


@pytest.mark.usefixtures("done")
def test_a_baseline_of_ones_own_stands_with_the_baselines(tmp_path):
    """Not among ours, where it once was what the report's first sentence spoke of."""
    c = config("quickstart", tmp_path, weights=True)
    c.baselines.systems = ("random_order", "popularity", "newest")
    c.baselines.newest = {"module": "popularity"}
    reproduction.main(c, tmp_path / "run", False)
    found = rows(tmp_path / "run", "report")
    assert found["newest"]["group"] == "classical" and found["newest"]["lead"] is not None
    assert found["r2rec"]["group"] == "ours"
    page = (tmp_path / "run/report.html").read_text()
    assert "R2Rec ranks the held-out item first for" in " ".join(page.split())


@pytest.mark.usefixtures("done")
def test_a_run_made_stage_by_stage_is_reported(tmp_path):
    """By launch.prepare, train, eval and baselines, as README shows it: no record of stages, and the names of
    configs/eval.py."""
    c, run = config("quickstart", tmp_path, weights=True), tmp_path / "run"
    c = stages.settle(c, run)
    stages.preparation.main(c, run / "data", False)
    stages.training.main(c.sft, run / "sft", False)
    section = c.eval.copy_and_resolve_references()
    stages.evaluation.evaluate(section, run / "eval", False)
    baseline_ranking.rank(c.baselines, run / "baselines", False)
    (page,) = report_pages.write(c, run)
    found = rows(run, "report")
    assert list(found) == ["random_order", "popularity", "base", "sft", "sft+grpo"]
    names = {name: row["name"] for name, row in found.items() if row["group"] == "ours"}
    assert names == {"base": "Prompt only", "sft": "R2Rec without RL", "sft+grpo": "R2Rec"}
    assert found["popularity"]["lead"] is not None and found["sft+grpo"]["lead"] is None
    # How long its training took is not known; the bare model had none.
    assert (found["sft+grpo"]["wall_s"], found["base"]["wall_s"]) == (0, 2.0)
    assert "| 12 |  |" in next(
        line for line in (run / "report.md").read_text().splitlines() if "| R2Rec |" in line
    )
    assert "R2Rec ranks the held-out item first for" in " ".join(page.read_text().split())


@pytest.mark.usefixtures("done")
def test_a_report_is_of_the_runs_data_and_stages_whatever_config_it_is_given(tmp_path):
    c, run = config("quickstart", tmp_path, weights=True), tmp_path / "run"
    c.data.update({"candidates": 7, "negatives": "popularity"})
    c = stages.settle(c, run)
    stages.preparation.main(c, run / "data", False)
    stages.training.main(c.sft, run / "sft", False)
    c.sft.train.update({"steps": 11, "batch_size": 3})
    (run / "sft" / "config.json").write_text(c.sft.to_json())
    stages.evaluation.evaluate(c.eval, run / "eval", False)
    (page,) = report_pages.write(reproduce_config.get_config("ml1m"), run)
    shown = " ".join(page.read_text().split())
    assert "<title>R2Rec on generated</title>" in shown and "out of 7 candidates each" in shown
    assert "7 a user, popularity negatives" in shown and f"HR@1 .{round(1000 / 7)}" in shown
    assert f"<dd>{c.model.folder}</dd>" in shown and "<dd>11 steps of 3</dd>" in shown
    assert "<dt>GRPO</dt>" not in shown and "paper" not in shown
    (run / "sft" / "config.json").write_text("[" * 10)
    with pytest.raises(UserError, match=r"sft/config\.json is damaged"):
        report_pages.write(c, run)


@pytest.mark.usefixtures("done")
def test_one_system_of_ones_own_makes_a_report(tmp_path):
    c, run = config("quickstart", tmp_path, weights=True), tmp_path / "run"
    c = stages.settle(c, run)
    stages.preparation.main(c, run / "data", False)
    c.eval.systems = {"mine": system_of()}
    stages.evaluation.evaluate(c.eval, run / "eval", False)
    (page,) = report_pages.write(c, run)
    assert "mine" in page.read_text() and rows(run, "report")["mine"]["group"] == "llm"


def test_policies_are_trained_once_for_their_seeds_and_shared_by_the_tables(tmp_path, done, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    workdir = tmp_path / "run"
    reproduction.main(config("table1_small", tmp_path, weights=True), workdir, False)
    history = ("chains", 0), ("likes", 0), ("reasoning", False)
    assert done == [
        ("annotate", ""),
        ("sft", ""),
        ("grpo", "sft"),
        ("r2rec", "grpo"),
        ("chatrec", "", *sorted([*history, ("history", 20)])),
        ("tallrec", ""),
        ("tallrec", "tallrec", *sorted([*history, ("history", 10)])),
    ]
    found = rows(workdir, "table1")
    assert found["r2rec"]["seeds"] == found["chatrec"]["seeds"] == [3]
    assert "items.npy" in found["llara"]["missing"] and "API_KEY" in found["o4-mini"]["missing"]

    done.clear()
    (workdir / "seed3/baselines/sasrec").mkdir()
    (workdir / "seed3/baselines/sasrec/items.npy").touch()
    monkeypatch.setenv("OPENAI_API_KEY", "one")
    reproduction.main(config("table1_small", tmp_path), workdir, False)
    assert [asked[:2] for asked in done] == [
        ("gpt-4o-mini", ""),
        ("llara", ""),
        ("llara", "llara"),
        ("o4-mini", ""),
    ]
    lacking = {row["missing"] for row in rows(workdir, "table1").values() if not row["seeds"]}
    assert lacking == {"not run yet"}  # of classical systems that the config leaves out

    done.clear()
    record = json.loads((workdir / "seed3/stages.json").read_text())
    record |= {
        name: {"seconds": s, "done": True} for name, s in (("annotate", 10), ("sft", 20), ("grpo", 30))
    }
    (workdir / "seed3/stages.json").write_text(json.dumps(record))
    reproduction.main(config("table2_small", tmp_path), workdir, False)
    assert done[0] == ("grpo_alone", "")
    assert set(done[1:]) == {
        ("prompt only, no interaction chain", "", ("chains", 0)),
        ("prompt only, no reasoning chain", "", ("reasoning", False)),
        ("prompt only", ""),
        ("r2rec without sft", "grpo_alone"),
        ("r2rec without rl", "sft"),
    }
    found = rows(workdir, "table2")
    assert all(row["users"] == 12 and row["valid_rate"] == 0.5 for row in found.values()) and len(found) == 6
    seconds = {name: row["wall_s"] for name, row in found.items()}
    assert seconds["prompt only"] == 2 and seconds["r2rec"] == pytest.approx(62, abs=0.5)
    assert seconds["r2rec without rl"] == pytest.approx(32, abs=0.5)


def test_an_interrupted_stage_goes_on_and_all_its_time_counts(tmp_path):
    attempts = []

    def work(_, folder, __):
        attempts.append(folder)
        folder.mkdir(exist_ok=True)
        time.sleep(0.06)
        if len(attempts) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.stage(tmp_path, "sft", work, None)
    stages.stage(tmp_path, "sft", work, None)
    stages.stage(tmp_path, "sft", work, None)
    assert attempts == [tmp_path / "sft"] * 2
    record = json.loads((tmp_path / "stages.json").read_text())["sft"]
    assert record["done"] and record["seconds"] >= 0.1


def test_absent_data_are_told_once_and_nothing_is_run(tmp_path):
    c = reproduce_config.get_config("table3_book")
    (tmp_path / "amazon").mkdir()
    c.data.raw = str(tmp_path / "amazon")  # another category may be there
    reproduction.main(c, tmp_path / "run", False)
    said = json.loads((tmp_path / "run/table3.json").read_text())
    assert [row["missing"] for row in said["rows"]] == [f"needs {c.data.raw}"] * 3
    assert "curl -fL" in said["note"] and (tmp_path / "run/table3.html").read_text().count("curl -fL") == 1
    assert [row["paper"]["hr@1"] for row in said["rows"]] == [0.484, 0.502, 0.586]
    assert not list((tmp_path / "run").glob("seed*"))


def test_another_table_or_more_seeds_go_on_in_the_workdir_other_settings_do_not(tmp_path):
    c = config("table1_small", tmp_path)
    c.baselines.systems = ("random_order",)
    c.seeds = c.policy_seeds = (0,)
    reproduction.main(c, tmp_path / "run", False)
    c.seeds, c.tables = (0, 1), ("table1", "table2")
    reproduction.main(c, tmp_path / "run", False)
    assert rows(tmp_path / "run", "table1")["random_order"]["seeds"] == [0, 1]
    assert len(rows(tmp_path / "run", "table2")) == 6
    c.sft.train.steps = 7
    with pytest.raises(UserError, match=r"sft\.train\.steps"):
        reproduction.main(c, tmp_path / "run", False)


def test_unknown_names_are_refused(tmp_path):
    c = config("table1_small", tmp_path)
    c.tables = ("table9",)
    with pytest.raises(UserError, match=r"table9.*table1, table2, table3"):
        reproduction.main(c, tmp_path / "run", False)
    c.tables, c.trained = ("table3",), {"books": "runs/x"}
    with pytest.raises(UserError, match=r"trained\.books.*book"):
        reproduction.main(c, tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


def test_the_hash_of_a_config_is_that_of_its_values(tmp_path):
    one, same, other = (config("table1_small", tmp_path) for _ in range(3))
    other.sft.train.steps += 1
    hashes = [paper_tables.config_hash(each.to_dict()) for each in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 12
    # As a workdir's config.json has it, a list for every tuple.
    assert paper_tables.config_hash(json.loads(json.dumps(one.to_dict()))) == hashes[0]
