import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import unfinished
from r2rec_jax.runtime.workdir import FORMAT, claim, read_record, require_same_inputs

ROOT = Path(__file__).parents[2]
# A run with workers, begun as the readers of batches and the payers of rewards are.
RUN = """
import multiprocessing, subprocess, sys, time
from ml_collections import ConfigDict
from r2rec_jax.runtime.workdir import claim

if __name__ == "__main__":
    config = {"steps": 3, "shape": (1, 2), "optimizer": {"lr": 1e-3, "clip": 1}}
    claim(sys.argv[1], ConfigDict(config), overwrite=False)
    reader = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    reader.start()
    payer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(reader.pid, payer.pid, flush=True)
    time.sleep(60)
"""


def config(**changes):
    return ConfigDict({"steps": 3, "shape": (1, 2), "optimizer": {"lr": 1e-3, "clip": 1}} | changes)


def test_a_new_workdir_holds_the_sorted_config_and_the_same_config_resumes(tmp_path):
    assert claim(tmp_path / "run", config(), overwrite=False) is False
    text = (tmp_path / "run/config.json").read_text()
    assert json.loads(text) == config(shape=[1, 2]).to_dict() | {"format": FORMAT}
    assert list(json.loads(text)) == ["format", "optimizer", "shape", "steps"]
    assert read_record(tmp_path / "run") == config(shape=[1, 2]).to_dict()
    (tmp_path / "run/kept").touch()
    assert claim(tmp_path / "run", config(), overwrite=False) is True
    assert (tmp_path / "run/kept").exists()


def test_a_run_is_made_longer_and_never_shorter(tmp_path):
    claim(tmp_path, config(), overwrite=False, grows="steps")
    with pytest.raises(UserError, match=r"steps \(3 there, 5 here\); choose"):
        claim(tmp_path, config(steps=5), overwrite=False)
    with pytest.raises(UserError, match=r"config: shape .*; choose"):
        claim(tmp_path, config(steps=5, shape=(1,)), overwrite=False, grows="steps")
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 3
    assert claim(tmp_path, config(steps=5), overwrite=False, grows="steps") is True
    assert read_record(tmp_path) == config(steps=5, shape=[1, 2]).to_dict()
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(
        UserError, match=r"steps \(5 there, 4 here\); steps can be raised, not lowered; choose"
    ):
        claim(tmp_path, config(steps=4), overwrite=False, grows="steps")
    assert (tmp_path / "config.json").read_bytes() == before


def test_another_config_is_refused_naming_at_most_three_fields(tmp_path):
    claim(tmp_path, config(), overwrite=False)
    other = config(steps=4, optimizer={"lr": 1e-3}, name="x", shape=(1,))
    with pytest.raises(UserError) as error:
        claim(tmp_path, other, overwrite=False)
    assert str(error.value) == (
        f'--workdir {tmp_path} belongs to another config: name (absent there, "x" here), '
        "optimizer.clip (1 there, absent here), shape ([1, 2] there, [1] here) and 1 more; "
        "choose another --workdir or add --overwrite to clear it"
    )
    # 1 == True in Python, and yet they are different settings.
    with pytest.raises(UserError, match=r"optimizer\.clip"):
        claim(tmp_path, config(optimizer={"lr": 1e-3, "clip": True}), overwrite=False)


@pytest.mark.parametrize("section", ["annotate.openai", "systems.x.server"])
def test_a_run_goes_on_with_another_limit_and_the_name_that_a_server_gives(tmp_path, section):
    """As the messages that ask for these say: with the same command."""

    def asked(**server):
        for name in reversed(section.split(".")):
            server = {name: server}
        return config(**server)

    assert not claim(tmp_path, asked(model="m", cost_limit=1.0, reported_model=""), overwrite=False)
    assert claim(tmp_path, asked(model="m", cost_limit=2.0, reported_model="n"), overwrite=False)
    with pytest.raises(UserError, match=rf"{section}\.model"):
        claim(tmp_path, asked(model="n", cost_limit=2.0, reported_model="n"), overwrite=False)


def test_a_run_goes_on_with_more_workers(tmp_path):
    for workers in (0, 2):
        stage = {"data": {"workers": workers}}
        assert claim(tmp_path, config(**stage, sft=stage), overwrite=False) is (workers > 0)
    with pytest.raises(UserError, match=r"data\.more_workers"):
        claim(tmp_path, config(**stage, sft={"data": {"more_workers": 1}}), overwrite=False)


def test_overwrite_clears_the_workdir(tmp_path):
    claim(tmp_path, config(), overwrite=False)
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/file").touch()
    assert claim(tmp_path, config(steps=4), overwrite=True) is False
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json"]
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 4


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_workdir_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"no config\.json"):
        claim(tmp_path, config(), overwrite)
    with pytest.raises(UserError, match="is a file"):
        claim(tmp_path / "thesis.tex", config(), overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_workdir_below_a_file_or_with_a_damaged_record(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        claim(tmp_path / "file/run", config(), overwrite=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text('{"steps"')
    with pytest.raises(UserError, match="is not JSON"):
        claim(tmp_path / "run", config(), overwrite=False)


@pytest.mark.parametrize(("found", "named"), [(None, 1), (FORMAT + 1, FORMAT + 1), ("new", "new")])
def test_the_workdir_of_another_version_is_refused_with_its_format(tmp_path, found, named):
    record = config().to_dict() | ({"format": found} if found else {})
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=rf"has config format {named}, and this .* format {FORMAT}: continue"):
        claim(tmp_path, config(), overwrite=False)
    assert claim(tmp_path, config(), overwrite=True) is False
    assert claim(tmp_path, config(), overwrite=False) is True


@pytest.fixture
def run(tmp_path):
    """(process, pids of its workers) of a run in tmp_path/run."""
    (tmp_path / "run.py").write_text(RUN)
    process = subprocess.Popen(
        [sys.executable, "run.py", str(tmp_path / "run")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    yield process, workers
    process.kill()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_run_is_refused_and_clears_nothing(tmp_path, run, overwrite):
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UserError) as error:
        claim(tmp_path / "run", config(), overwrite)
    assert f"--workdir {tmp_path / 'run'} is in use by another run (pid {run[0].pid} on " in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_killed_run_leaves_no_lock_though_its_workers_live(tmp_path, run):
    process, workers = run
    process.kill()
    process.wait()
    assert claim(tmp_path / "run", config(), overwrite=False) is True
    for pid in workers:
        os.kill(pid, 0)  # still there


def test_overwrite_spares_a_run_at_work_further_inside(tmp_path, run):
    """A stage of launch.reproduce, run by hand."""
    (tmp_path / "run.py").unlink()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "report.html").touch()
    with pytest.raises(UserError, match=f"{tmp_path / 'run'}, which --overwrite would clear, is in use"):
        claim(tmp_path, config(), overwrite=True)
    assert (tmp_path / "report.html").exists() and (tmp_path / "run" / "config.json").exists()
    run[0].kill()
    run[0].wait()
    assert claim(tmp_path, config(), overwrite=True) is False
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json"]


def test_one_process_comes_back_as_often_as_it_likes(tmp_path):
    outer, inner = tmp_path, tmp_path / "sft"
    for _ in range(2):
        assert claim(outer, config(), overwrite=True) is False
        assert claim(inner, config(), overwrite=False) is False
        assert claim(inner, config(), overwrite=False) is True


def test_a_claim_that_was_cut_short_is_no_strangers_folder(tmp_path):
    (tmp_path / ".lock").touch()
    unfinished(tmp_path / "config.json").write_text('{"steps"')
    assert claim(tmp_path, config(), overwrite=False) is False
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json"]


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000, "\xff"])
def test_a_record_that_cannot_be_walked_is_refused(tmp_path, nested):
    (tmp_path / "config.json").write_text(nested, encoding="latin-1")
    with pytest.raises(UserError, match="is not JSON"):
        claim(tmp_path, config(), overwrite=False)


def test_a_difference_is_told_in_a_line(tmp_path):
    claim(tmp_path, config(), overwrite=False)
    record = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(record | {"steps": "\x1b" * 99_999, "x" * 99_999: 1}))
    with pytest.raises(UserError, match="belongs to another config") as caught:
        claim(tmp_path, config(), overwrite=False)
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


def test_a_run_begun_with_another_adapter_is_refused(tmp_path):
    require_same_inputs(tmp_path, {"sft": 1, "sft+grpo": 2})
    require_same_inputs(tmp_path, {"sft": 1, "sft+grpo": 2})
    with pytest.raises(UserError, match=r"started with another adapter of sft\+grpo than the present"):
        require_same_inputs(tmp_path, {"sft": 1, "sft+grpo": 3})
    (tmp_path / "inputs.json").write_text("{")
    with pytest.raises(UserError, match=r"inputs.json is not JSON.*--overwrite"):
        require_same_inputs(tmp_path, {"sft": 1})
