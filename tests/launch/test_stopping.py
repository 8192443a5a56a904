"""Real training processes: told to stop by real signals, beside each other, and on a full disk."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs import reproduce
from configs.base import system
from r2rec_jax.runs import training
from r2rec_jax.runtime.metric_writer import read
from tests.launch.road import CACHE, ROOT, untimed

pytestmark = pytest.mark.slow
STEPS = 60


class Command:
    """A command as a user starts it, its config in a file beside the workdir."""

    def __init__(self, name, config, workdir):
        self.cwd, file = workdir.parent, workdir.with_suffix(".py")
        code = f"def get_config():\n    return ConfigDict({config.to_dict()})\n"
        file.write_text(f"from ml_collections import ConfigDict\n{code}")
        self.start([sys.executable, "-m", f"launch.{name}", f"--config={file}", f"--workdir={workdir}"])

    def start(self, arguments) -> None:
        self.process = subprocess.Popen(
            arguments,
            cwd=self.cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | CACHE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        """(exit code, the last line of stderr)."""
        _, err = self.process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return self.process.returncode, err.splitlines()[-1]


def wait_for(done) -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture
def config(road):
    config = road.sft.copy_and_resolve_references()
    config.train.update({"steps": STEPS, "checkpoint_every": 1000})
    config.data.workers = 1
    return config


def test_stopped_it_goes_on_with_the_command_that_it_says(config, tmp_path):
    """And a second run beside it is refused."""
    workdir = tmp_path / "run"
    first = Command("train", config, workdir)
    wait_for(lambda: lines_in(workdir / "metrics.jsonl") > 2)
    first.process.send_signal(signal.SIGSTOP)
    code, line = Command("train", config, workdir).end()
    assert code == 2
    assert line.startswith(
        f"error: --workdir {workdir} is in use by another run (pid {first.process.pid} on "
    )
    first.process.send_signal(signal.SIGTERM)
    first.process.send_signal(signal.SIGCONT)
    code, line = first.end()
    assert code == 0
    done = read(workdir)[-1]["step"]
    assert 3 <= done < STEPS
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == [str(done)]
    first.start(shlex.split(re.fullmatch("stopped; resume with: (.*)", line)[1]))
    assert first.end()[0] == 0
    training.main(config, tmp_path / "whole", False)
    assert untimed(workdir) == untimed(tmp_path / "whole")


SLOW = """
import time
from pathlib import Path

HERE = Path(__file__).parent

def pay(record, said, config):
    if (HERE / "be slow").exists():
        (HERE / "is slow").touch()
        time.sleep(20)
    return {"nothing": 0.0}
"""


def test_a_second_signal_leaves_the_newest_checkpoint_good(road, tmp_path, monkeypatch):
    """The first one waits for the step, which takes too long."""
    (tmp_path / "slow.py").write_text(SLOW)
    config = road.grpo.copy_and_resolve_references()
    config.train.update({"steps": 6, "checkpoint_every": 1, "evaluate_every": 100})
    config.reward.update({"extra": ("slow:pay",), "workers": 0})
    workdir = tmp_path / "run"
    first = Command("train", config, workdir)
    wait_for(lambda: (workdir / "checkpoints" / "1").exists())
    (tmp_path / "be slow").touch()
    wait_for(lambda: (tmp_path / "is slow").exists())
    for number in (signal.SIGTERM, signal.SIGTERM):
        first.process.send_signal(number)
        time.sleep(1.2)
    assert first.end() == (130, "stopped at once; the newest whole checkpoint is good")
    (tmp_path / "be slow").unlink()
    assert Command("train", config, workdir).end()[0] == 0
    monkeypatch.syspath_prepend(tmp_path)
    training.main(config, tmp_path / "whole", False)
    assert untimed(workdir) == untimed(tmp_path / "whole")


def test_a_full_disk_ends_training_in_one_line(config, tmp_path, mount):
    disk = mount("size=8m")
    config.train.checkpoint_every = 4
    workdir = disk / "run"
    first = Command("train", config, workdir)
    wait_for(lambda: any((workdir / "checkpoints").glob("[0-9]")))
    first.process.send_signal(signal.SIGSTOP)
    with pytest.raises(OSError), open(disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(1024))
    first.process.send_signal(signal.SIGCONT)
    code, line = first.end()
    assert code == 2 and line.startswith("error: ") and "No space left on device" in line
    (disk / "filler").unlink()
    assert Command("train", config, workdir).end()[0] == 0
    training.main(config, tmp_path / "whole", False)
    assert untimed(workdir) == untimed(tmp_path / "whole")


def test_reproduce_stops_as_a_whole(tmp_path):
    config = reproduce.get_config("quickstart")
    config.model.folder = str(ROOT / "models" / "tiny-llama")
    config.data.generated_users = 100
    config.data.sizes.update({"sft": 32, "grpo": 16, "validation": 3, "evaluation": 5})
    run = tmp_path / "run"
    first = Command("reproduce", config, run)
    wait_for(lambda: lines_in(run / "sft" / "metrics.jsonl") > 0)
    first.process.send_signal(signal.SIGTERM)
    code, line = first.end()
    assert code == 0 and line.startswith("stopped; resume with: ") and "launch.reproduce" in line
    assert any((run / "sft" / "checkpoints").iterdir())
    stages = json.loads((run / "stages.json").read_text())
    assert {name: stage["done"] for name, stage in stages.items()} == {
        "data": True,
        "annotate": True,
        "sft": False,
    }
    assert not (run / "grpo").exists() and not (run / "report.html").exists()


STOPS = int(os.environ.get("R2REC_STOPS", "3"))  # of each command


@pytest.mark.parametrize(
    ("flags", "begun", "code"),
    [
        (("eval", "--config=eval.py", "--workdir=run"), "ranking/s", 0),
        (("bench", "grpo", "--quick", "--overwrite", "--out=grpo.json"), "attention:", 130),
    ],
    ids=["eval", "bench"],
)
def test_stopped_while_the_device_works_a_command_ends_in_its_line(road, tmp_path, flags, begun, code):
    """With donated computations in flight, in JAX's tracing, or in a callback of the garbage collector."""
    values = road.eval.to_dict() | {"systems": {"base": system().to_dict()}}
    text = f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({values})\n"
    (tmp_path / "eval.py").write_text(text)
    rng, log = random.Random(0), tmp_path / "log"
    for _ in range(STOPS):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        with open(log, "wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", f"launch.{flags[0]}", *flags[1:]],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | CACHE,
                stdout=subprocess.DEVNULL,
                stderr=err,
            )
        wait_for(lambda: begun in log.read_text(errors="replace"))
        time.sleep(rng.uniform(0, 5))
        process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM]))
        ended, said = process.wait(120), log.read_text(errors="replace")
        finished = (tmp_path / "run" / "metrics.json").exists() or (tmp_path / "grpo.json").exists()
        assert ended == (0 if finished else code), said
        assert not re.search("terminate called|Fatal Python error|Traceback|Exception ignored", said), said
        (tmp_path / "grpo.json").unlink(missing_ok=True)
