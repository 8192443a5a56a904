"""launch.tensorboard: event files hold the numbers of metrics.jsonl, read record by record."""

import math
import struct
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from launch import tensorboard
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.metric_writer import MetricWriter
from tests.launch.road import ROOT


def scalars(folder) -> dict[tuple[str, int], float]:
    """By the format of TFRecord: length uint64, its CRC, the event, its CRC."""
    (file,) = folder.iterdir()
    data, found = file.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


@pytest.fixture
def workdir(tmp_path):
    writer = MetricWriter(tmp_path / "run")
    writer.write(1, {"train/loss": 2.5, "rollout/tokens_per_s": 1e6, "train/kl": math.nan})
    writer.write(2, {"train/loss": 1.25})
    writer.write(2, {"validation/hr@1": 0.375})
    return tmp_path / "run"


def test_every_finite_number_is_a_scalar_at_its_step(workdir, capsys):
    wanted = {("train/loss", 1): 2.5, ("rollout/tokens_per_s", 1): 1e6, ("train/loss", 2): 1.25}
    wanted |= {("validation/hr_1", 2): 0.375}  # no tag of TensorBoard holds an @
    tensorboard.main([str(workdir)])
    assert scalars(workdir / "tensorboard") == wanted
    MetricWriter(workdir).write(3, {"train/loss": 1.0})
    tensorboard.main([str(workdir)])  # anew, not beside the first
    assert scalars(workdir / "tensorboard") == wanted | {("train/loss", 3): 1.0}
    assert capsys.readouterr().out.endswith("tensorboard: 5 values\n")
    assert {path.name for path in workdir.iterdir()} == {"metrics.jsonl", "tensorboard"}


def test_what_is_no_run_is_refused_and_nothing_is_written(workdir, tmp_path):
    with pytest.raises(UserError, match=r"other has no metrics\.jsonl"):
        tensorboard.main([str(workdir), str(tmp_path / "other")])
    (workdir / "tensorboard").mkdir()
    (workdir / "tensorboard" / "notes.txt").touch()
    with pytest.raises(UserError, match="has other files"):
        tensorboard.main([str(workdir)])
    assert [path.name for path in (workdir / "tensorboard").iterdir()] == ["notes.txt"]


def test_without_a_workdir():
    command = [sys.executable, "-m", "launch.tensorboard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: name the workdirs of training runs")
