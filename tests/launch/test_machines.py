"""Training on several processes that talk over loopback: what one process does, and how they end together.

Always four devices: of one process, two each of two, or one each of four.
"""

import re
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.runtime.metric_writer import read
from r2rec_jax.train.export import restore_adapter
from tests.launch.processes import DEVICES, Run, run
from tests.launch.road import ROOT, Road, command, lines, make_inputs, untimed

SFT_STEPS = 40  # enough to be in the middle of them


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Road:
    road = make_inputs(tmp_path_factory.mktemp("machines"))
    road.sft.train.update({"batch_size": DEVICES, "response_buckets": (64, 128, 256)})
    road.sft.train.update({"steps": SFT_STEPS, "checkpoint_every": 5})
    road.grpo.train.update({"batch_size": DEVICES, "steps": 3, "evaluate_every": 2})
    road.grpo.grpo.update({"updates_per_rollout": 2, "group": 4})
    road.grpo.reward.extra = ("tests.launch.rewards:vowels",)
    return road


@pytest.fixture(scope="module")
def sft(inputs) -> Path:
    return run(inputs.sft, Path(inputs.at("sft")), 1)


@pytest.fixture(scope="module")
def grpo(inputs, sft) -> Path:
    assert inputs.grpo.train.init == str(sft)
    workdir = run(inputs.grpo, Path(inputs.at("grpo")), 1)
    steps = [row for row in read(workdir) if "train/loss" in row]
    assert all(row["train/grad_norm"] > 0 and row["reward/vowels"] > 0 for row in steps)
    assert any(row["reward/failed_count"] > 0 for row in steps)
    return workdir


def split(config: ConfigDict, **mesh) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.mesh.update(mesh)
    return config


def same(workdir: Path, expected: Path) -> None:
    """Metrics, samples and adapter of two runs agree; sums over devices are taken in another order."""
    rows, wanted = untimed(workdir), untimed(expected)
    assert [row["step"] for row in rows] == [row["step"] for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-5, atol=1e-6, err_msg=name)
    if (expected / "samples.jsonl").exists():
        assert lines(workdir, "samples.jsonl") == lines(expected, "samples.jsonl")
    trees = [restore_adapter(folder)[2] for folder in (workdir, expected)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), *trees)


def steps_of(workdir: Path) -> int:
    return max((row["step"] for row in read(workdir)), default=0)


@pytest.mark.slow
def test_grpo_is_that_of_one_process(inputs, grpo, tmp_path):
    """Also where a parameter's parts are on different processes."""
    same(run(split(inputs.grpo, data=2, fsdp=2), tmp_path / "two", 2), grpo)


@pytest.mark.slow
def test_one_that_is_told_to_stop_stops_all_and_fewer_go_on(inputs, sft, tmp_path):
    workdir = tmp_path / "sft"
    with Run(inputs.sft, workdir, 4) as stopped:
        stopped.wait_for(lambda: steps_of(workdir) >= 2)
        stopped.processes[2].send_signal(signal.SIGTERM)
        codes = stopped.wait()
        assert len(set(codes)) == 1 and codes[0] >= 0, (codes, stopped.ends())
        at = [re.findall(r"stopped after step (\d+)", said) for said in stopped.said()]
        assert at[0] and at == at[:1] * 4
        assert steps_of(workdir) == int(at[0][0]) < SFT_STEPS
    same(run(inputs.sft, workdir, 2), sft)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_is_killed_ends_all_and_the_same_command_goes_on(inputs, sft, tmp_path, victim):
    workdir = tmp_path / "sft"
    with Run(inputs.sft, workdir, 2) as broken:
        broken.wait_for(lambda: (workdir / "checkpoints" / "5").is_dir())
        broken.processes[victim].kill()
        killed = time.monotonic()
        codes = broken.wait(60)
        assert time.monotonic() - killed < 60
        assert codes[victim] == -signal.SIGKILL and codes[1 - victim] not in (0, 2)
        assert re.search("lost another process|another task died", broken.said()[1 - victim])
        assert steps_of(workdir) < SFT_STEPS
    if victim == 0:  # going on is the same after either
        same(run(inputs.sft, workdir, 2), sft)


def test_what_one_refuses_ends_all(inputs, tmp_path):
    """The first process alone looks whose workdir it is; and no other is left waiting."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with Run(inputs.sft, other, 2) as refused:
        assert refused.wait() == [2, 2]
        assert all(re.search("error: --workdir .* is no workdir", said) for said in refused.said())
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "flags", "line"),
    [
        ("train", ["--process_id=0"], "--process_id is for a run of several processes: add --distributed"),
        ("train", ["--distributed", "--num_processes=2"], "--num_processes is not enough"),
        (
            "train",
            ["--distributed", "--coordinator_address=x:1", "--num_processes=2", "--process_id=2"],
            "with process_id < num_processes",
        ),
        ("train", ["--distributed"], "start it under Slurm, Open MPI or Kubernetes, or add"),
        ("baselines", ["--distributed"], "this command runs in one process"),
        ("convert", ["--distributed"], "this command has no flag --distributed"),
    ],
)
def test_flags_that_cannot_be_meant(tmp_path, name, flags, line):
    if name != "convert":
        configs = {"train": "sft", "baselines": "baselines"}
        flags = [*flags, f"--config={ROOT}/configs/{configs[name]}.py:quickstart", "--workdir=w"]
    done = command(name, *flags, cwd=tmp_path)
    assert done.returncode == 2 and line in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "w").exists()
