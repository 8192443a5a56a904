"""Commands whose workdir and inputs are on an object store: a stand-in's server process."""

import json
import re
import signal
import socket
from pathlib import Path

import jax
import numpy as np
import pytest

from launch import eval as evaluation
from launch import prepare, remote, train
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.lease import NAME
from r2rec_jax.runtime.store import Store, hidden
from r2rec_jax.train.export import restore_adapter
from tests.launch.processes import Run, run
from tests.launch.road import ROOT, Road, command, lines, make_inputs, untimed
from tests.stand_in import BUCKET, S3, gcs, s3

STEPS, EVERY = 12, 3
MANY, SELDOM = 200, 20  # enough for a kill to come between them


@pytest.fixture(scope="module")
def server():
    with s3() as server:
        yield server


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, server) -> Road:
    """Made in folders, then put on the store by another client."""
    road = make_inputs(tmp_path_factory.mktemp("stores"))
    road.sft.train.update({"batch_size": 4, "steps": STEPS, "checkpoint_every": EVERY})
    for name in ("model", "annotate", "data"):
        server.upload(road.at(name), f"inputs/{name}")
    return road


@pytest.fixture(scope="module")
def long(inputs):
    """The config of a run that takes long enough."""
    config = inputs.sft.copy_and_resolve_references()
    config.train.update({"steps": MANY, "checkpoint_every": SELDOM})
    return config


@pytest.fixture(scope="module")
def local(inputs, long) -> Path:
    return run(long, Path(inputs.at("sft")), 1)


def at_store(config):
    """`config` with its inputs on the store."""
    config = config.copy_and_resolve_references()
    for section, name in ((config.data, "data"), (config.annotate, "annotate"), (config.model, "model")):
        section.folder = f"s3://{BUCKET}/inputs/{name}"
    return config


def start(server: S3, config, folder: Path, cache: str, processes: int = 1) -> Run:
    """The command in s3://BUCKET/FOLDER's name, with a cache of its own: as on another machine."""
    environment = server.environment | {"XDG_CACHE_HOME": str(folder.with_name(cache))}
    return Run(config, folder, processes, f"s3://{BUCKET}/{folder.name}", environment)


def adapters(inputs: Road, *workdirs: Path) -> list[dict]:
    """The newest checkpoint's adapter of each; their model is read from its folder."""
    for workdir in workdirs:
        record = workdir / "config.json"
        record.write_text(record.read_text().replace(f"s3://{BUCKET}/inputs/model", inputs.at("model")))
    return [restore_adapter(workdir)[2] for workdir in workdirs]


def same(inputs: Road, got: Path, expected: Path) -> None:
    """Of two runs, to the bit."""
    assert untimed(got) == untimed(expected)
    jax.tree.map(np.testing.assert_array_equal, *adapters(inputs, got, expected))


@pytest.fixture
def machine(server, tmp_path, monkeypatch):
    """machine(name): from here on this process is on one that has seen nothing yet."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return lambda name: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))


def call(main, config, url: str) -> None:
    with remote.at_hand(config, url, supported=True) as (here, workdir):
        main(here, workdir, False)


def test_data_are_prepared_on_the_store(server, inputs, machine, tmp_path):
    machine("one")
    call(prepare.main, inputs.data, f"s3://{BUCKET}/prepared")
    got, wanted = server.download("prepared", tmp_path / "prepared"), Path(inputs.at("data"))
    assert {path.name: path.read_bytes() for path in got.iterdir()} == {
        path.name: path.read_bytes() for path in wanted.iterdir() if not hidden(path.name)
    }
    machine("another")
    with pytest.raises(UserError, match="already exists"):
        call(prepare.main, inputs.data, f"s3://{BUCKET}/prepared")


def test_a_run_and_what_reads_it(server, inputs, machine, tmp_path):
    """Trained on one machine; evaluated on another; on a third gone on from a damaged checkpoint."""
    train.main(inputs.sft, tmp_path / "local", False)
    config, url = at_store(inputs.sft), f"s3://{BUCKET}/trained"
    machine("one")
    call(train.main, config, url)
    same(inputs, server.download("trained", tmp_path / "trained"), tmp_path / "local")
    assert json.loads(server.get("trained/config.json"))["data"]["folder"] == f"s3://{BUCKET}/inputs/data"

    judged = inputs.eval.copy_and_resolve_references()
    judged.systems = {"sft": judged.systems.sft}
    judged.systems.sft.adapter = str(tmp_path / "local")
    evaluation.main(judged, tmp_path / "eval", False)
    machine("two")
    there = at_store(judged)
    there.systems.sft.adapter = url
    call(evaluation.main, there, f"s3://{BUCKET}/eval")
    got, wanted = (
        json.loads(server.get("eval/metrics.json")),
        json.loads((tmp_path / "eval/metrics.json").read_text()),
    )
    for metrics in (got, wanted):
        metrics["systems"]["sft"].pop("wall_s")
    assert got == wanted

    machine("three")
    state = max(server.names(f"trained/checkpoints/{STEPS}/state/"), key=lambda name: len(server.get(name)))
    data = bytearray(server.get(state))
    data[len(data) // 2] ^= 1
    server.put(state, bytes(data))
    call(train.main, config, url)
    assert f"trained/checkpoints/damaged-{STEPS}/commit_success.txt" in server.names("trained/")
    same(inputs, server.download("trained", tmp_path / "again"), tmp_path / "local")


@pytest.mark.slow
def test_a_run_on_googles(inputs, machine, monkeypatch, tmp_path):
    train.main(inputs.sft, tmp_path / "local", False)
    with gcs() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        machine("one")
        call(train.main, inputs.sft, f"gs://{BUCKET}/run")
        Store(f"gs://{BUCKET}/run").delete(NAME)  # the stand-in tells no reader an object's generation
        machine("two")
        with remote.at_hand(inputs.sft, f"gs://{BUCKET}/run", supported=True) as (_, fetched):
            same(inputs, fetched, tmp_path / "local")


@pytest.mark.slow
def test_a_server_that_is_not_there_is_one_line(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    done = command("train", "--config=configs/sft.py:quickstart", "--workdir=s3://bucket/run", cwd=ROOT)
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: s3://bucket/run cannot be reached (") and done.stderr.count("\n") == 1
    )


def test_a_command_without_object_stores_says_so(tmp_path):
    for flags in (
        ("plan", "--config=configs/sft.py:quickstart", "--config.model.folder=s3://bucket/model"),
        ("report", "--config=configs/reproduce.py:quickstart", "--workdir=gs://bucket/run"),
        ("convert", "--source=s3://bucket/model", f"--target={tmp_path / 'out'}"),
    ):
        done = command(*flags, cwd=ROOT)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "this command takes no object store; copy the folder from there" in done.stderr


@pytest.mark.slow
def test_a_killed_run_goes_on_elsewhere_as_if_nothing_had_happened(server, inputs, long, local, tmp_path):
    folder, config = tmp_path / "sft", at_store(long)

    def published() -> bool:
        # Of a whole checkpoint: parts of one have markers of their own, which come before it.
        return any(re.fullmatch(r"sft/checkpoints/\d+/commit_success.txt", n) for n in server.names("sft/"))

    with start(server, config, folder, "here") as first:
        first.wait_for(published)
        first.processes[0].send_signal(signal.SIGKILL)
        first.wait()
    assert lines(server.download("sft", tmp_path / "killed"), "metrics.jsonl")
    with start(server, config, folder, "elsewhere") as second:
        assert second.wait() == [0], second.ends()
        assert f"resuming s3://{BUCKET}/sft at step" in second.ends()
    got = server.download("sft", tmp_path / "downloaded")
    same(inputs, got, local)
    steps = [{path.name for path in (run / "checkpoints").iterdir()} for run in (got, local)]
    assert steps[0] == steps[1] == {str(MANY - SELDOM), str(MANY)}


@pytest.mark.slow
def test_two_processes_write_one_workdir(server, inputs, long, local, tmp_path):
    folder, config = tmp_path / "two", at_store(long)
    with start(server, config, folder, "here", processes=2) as both:
        assert both.wait() == [0, 0], both.ends()
    got = server.download("two", tmp_path / "downloaded")
    assert [row["step"] for row in untimed(got)] == [row["step"] for row in untimed(local)]
    trees = adapters(inputs, got, local)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), *trees)
