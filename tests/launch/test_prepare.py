"""launch.prepare on every preset's files, in a process where exit codes matter."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import data
from r2rec_jax.chains.chain import Chain
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data import prepared
from r2rec_jax.data.split_audit import audit
from r2rec_jax.prompts import ranking_prompt
from r2rec_jax.runs import preparation
from r2rec_jax.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("R2REC_SHARED", ROOT.parent / "shared")) / "data" / "ml-1m"


@pytest.fixture
def amazon(tmp_path) -> Path:
    """A folder with Books.jsonl.gz and meta_Books.jsonl.gz: 60 users, 40 items."""
    rng = np.random.default_rng(0)
    reviews = [
        {"user_id": f"U{u}", "parent_asin": f"B{i}", "rating": float(rng.integers(3, 6))}
        | {"timestamp": int(1_500_000_000_000 + rng.integers(10**11)), "text": 'a "quote"\n' * 3}
        for u in range(60)
        for i in rng.choice(40, 14, replace=False)
    ]
    reviews += reviews[:5]  # some twice
    items = [
        {"parent_asin": f"B{i}", "title": f"Book {i} &amp; more", "store": "Anne", "price": "from 3"}
        | {"categories": ["Books", "Fiction"], "features": []}
        for i in range(39)
    ]
    folder = tmp_path / "amazon"
    folder.mkdir()
    for name, rows in (("Books", reviews), ("meta_Books", items)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def config_of(folder, **settings):
    config = data.get_config("amazon-book")
    config.data.update({"raw": str(folder), "candidates": 10} | settings)
    config.data.sizes.update({"sft": 10, "grpo": 5, "validation": 5, "evaluation": 20})
    return config


@pytest.mark.parametrize(
    "settings", [{}, {"negatives": "hard"}, {"negatives": "popularity"}, {"before_target_time": True}]
)
def test_amazon_from_files_to_counts_twice(amazon, tmp_path, capsys, settings):
    printed = []
    for name in ("one", "two"):
        preparation.main(config_of(amazon, **settings), tmp_path / name, False)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    said = dict(line.split("  ", 1) for line in map(str.strip, printed[0].splitlines()))
    wanted = {"users": "60", "items": "40", "ratings": "840", "evaluation": "20", "ratings_repeated": "5"}
    wanted |= {"items_not_listed": "1", "titles_missing": "1", "titles_with_html_entities": "39"}
    assert {key: said[key] for key in wanted} == wanted
    assert int(said["chains audited"]) > 100
    assert said["ratings on the scale"].strip() == "1 to 5 in steps of 1"
    assert (said["a like is above"].strip(), said["rows are ordered by"].strip()) == ("3", "time")
    assert (said["truths_tied_in_time"], said["truths_others_under_random_ties"]) == ("0", "0")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    dataset, manifest = prepared.load(tmp_path / "one"), prepared.read_manifest(tmp_path / "one")
    audit(dataset)
    assert manifest["source"].endswith("review_categories/Books.jsonl.gz")
    assert manifest["protocol"].items() >= ({"seed": 0, "ties": "file", "candidates": 10} | settings).items()
    assert manifest["rules"]["ratings_repeated"] == 5
    assert manifest["scale"] == {"kind": "stars", "least": 1, "most": 5, "step": 1}
    assert dataset.catalog.user_ids[dataset.find_user("U7")] == "U7"
    assert dataset.catalog.title[dataset.find_item("B7")] == "Book 7 & more"
    assert {path.name for path in tmp_path.iterdir()} == {"amazon", "one", "two"}


def test_a_run_that_stops_after_parsing_goes_on(amazon, tmp_path, monkeypatch):
    config, workdir = config_of(amazon), tmp_path / "data"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepared, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            preparation.main(config, workdir, False)
    assert not workdir.exists()
    parsed = sorted((tmp_path / "data.staging").glob("*.parquet"))
    assert len(parsed) == 2
    with pytest.raises(UserError, match="no prepared data set"):
        prepared.load(workdir)
    preparation.main(config, workdir, False)
    preparation.main(config, tmp_path / "other", False)
    assert prepared.read_manifest(workdir) == prepared.read_manifest(tmp_path / "other")
    assert not (tmp_path / "data.staging").exists()


def test_nothing_is_left_to_clear_once_the_data_are_there(amazon, tmp_path, monkeypatch):
    """What was parsed goes before the folder appears, a scratch folder at the next start."""
    config, workdir = config_of(amazon), tmp_path / "data"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            preparation.main(config, workdir, False)
    assert {path.name for path in tmp_path.iterdir()} == {"amazon"}
    preparation.main(config, workdir, False)
    (tmp_path / ".data.abcd1234.tmp").mkdir()
    preparation.main(config, workdir, False)
    assert {path.name for path in tmp_path.iterdir()} == {"amazon", "data"}


def test_the_same_command_again_finds_its_data_and_another_one_is_refused(amazon, tmp_path, capsys):
    workdir = tmp_path / "data"
    preparation.main(config_of(amazon), workdir, False)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in workdir.iterdir()}
    capsys.readouterr()
    preparation.main(config_of(amazon, workers=5), workdir, False)
    assert capsys.readouterr().out == (
        f"{workdir} already exists, made from the same files with the same settings\n"
    )

    def refused(**settings) -> None:
        with pytest.raises(UserError, match="already exists: choose another folder or add --overwrite"):
            preparation.main(config_of(amazon, **settings), workdir, False)

    refused(candidates=11)
    refused(seed=1)
    raw = amazon / "Books.jsonl.gz"
    times = raw.stat().st_atime_ns, raw.stat().st_mtime_ns
    os.utime(raw, ns=(times[0], times[1] + 1))
    refused()
    os.utime(raw, ns=times)
    preparation.main(config_of(amazon), workdir, False)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in workdir.iterdir()} == before
    with open(workdir / "rating.npy", "ab") as file:
        file.write(b"\0")
    refused()
    preparation.main(config_of(amazon), workdir, True)
    assert {path: path.read_bytes() for path in workdir.iterdir()} == {
        p: data for p, (_, data) in before.items()
    }


@pytest.mark.parametrize("late", [False, True])
def test_a_leaking_sampler_is_caught(amazon, tmp_path, monkeypatch, late):
    """Chains with a rating that nobody gave, or with others' later ones, stop the command."""

    def leaking(graph, user, count, *_, **__):
        return list(chains(graph, user, count))

    def chains(graph, user, count):
        items = graph.items_of(user)
        for item in items[:count]:
            for other in graph.users_of(item):
                shared = np.intersect1d(graph.items_of(other), items)
                if other != user and len(shared) > 1:
                    i0, i1 = shared[:2].tolist()
                    r = graph.rating
                    yield Chain(
                        user, r(user, i0) + (not late), i0, r(other, i0), other, r(other, i1), i1, r(user, i1)
                    )

    monkeypatch.setattr(ranking_prompt, "sample_chains", leaking)
    with pytest.raises(UserError, match="after the time of the held-out item" if late else "not in the log"):
        preparation.main(config_of(amazon, before_target_time=True), tmp_path / "data", False)
    assert not (tmp_path / "data").exists()


def test_the_graph_holds_nothing_from_a_truth_on(amazon, tmp_path):
    preparation.main(config_of(amazon), tmp_path / "data", False)
    dataset = prepared.load(tmp_path / "data")
    graph, log = build_graph(dataset), dataset.interactions
    for user in range(log.n_users):
        rows = range(int(log.offsets[user]), int(dataset.split.cutoff[user]))
        assert graph.items_of(user).tolist() == sorted(log.item[row] for row in rows)


def test_a_log_without_ratings_and_times_and_its_warnings(tmp_path, capsys):
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [(f"u{u}", f"i{(u * 5 + k * 7) % 47}") for u in range(30) for k in range(12)]
    (raw / "log.csv").write_text("".join(f"{user};{item}\n" for user, item in rows), encoding="utf-8")
    items = "".join(f"i{k};Thing {k}\n" for k in range(30))
    (raw / "items.csv").write_text(items, encoding="utf-8")
    config = data.get_config("implicit")
    config.data.raw = str(raw)
    config.data.table.update({"ratings": "log.csv", "user": "1", "item": "2"})
    config.data.table.update({"items_file": "items.csv", "items_id": "1", "title": "2"})
    config.data.sizes.update({"sft": 5, "grpo": 5, "validation": 0, "evaluation": 10})
    preparation.main(config, tmp_path / "data", False)
    printed = capsys.readouterr().out
    assert (
        "rows are ordered by  their order in the file" in printed
        and "interactions without ratings" in printed
    )
    assert "items_not_listed 17 of 47" in printed.partition("WARNING")[2]
    dataset = prepared.load(tmp_path / "data")
    audit(dataset)
    user = dataset.find_user("u3")
    history = [dataset.catalog.item_ids[k] for k in dataset.interactions.item[dataset.history(user)]]
    assert history == [item for who, item in rows if who == "u3"][:-1]


def run(*flags, cwd) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "launch.prepare", *flags],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "preset", ["ml-1m", "ml-100k", "ml-25m", "amazon-book", "amazon-2018", "amazon-2014"]
)
def test_absent_files_are_named_with_where_to_get_them(tmp_path, preset):
    with pytest.raises(UserError, match="curl -fL") as error:
        config = data.get_config(preset)
        config.data.raw = str(tmp_path / "absent")
        preparation.main(config, tmp_path / "data", False)
    assert "https://" in str(error.value) and "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_bad_input_is_one_line_and_exit_code_2(amazon, tmp_path):
    path = amazon / "Books.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-100])
    done = run(
        f"--config={ROOT}/configs/data.py:amazon-book",
        f"--config.data.raw={amazon}",
        "--workdir=data",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {path} cannot be read") and done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"amazon"}


@pytest.mark.slow
def test_real_movielens_twice(tmp_path, capsys):
    if not REAL.is_dir():
        pytest.skip(f"MovieLens-1M is not at {REAL}; set R2REC_SHARED to the folder above data/")
    config = data.get_config("ml-1m")
    config.data.raw = str(REAL)
    config.data.sizes.update({"sft": 20, "grpo": 20, "validation": 10, "evaluation": 50})
    for name in ("one", "two"):
        preparation.main(config, tmp_path / name, False)
    said = capsys.readouterr().out
    for text in ("users  6,040", "ratings  1,000,209", "items  3,883", "eligible_users  6,028"):
        assert said.count(text) >= 2
    assert prepared.read_manifest(tmp_path / "one") == prepared.read_manifest(tmp_path / "two")
