"""The command as a user runs it: the embedded model's plan, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*flags):
    command = [sys.executable, "-m", "launch.plan", *flags]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_plan_of_the_embedded_model(tmp_path):
    flags = ("--config=configs/grpo.py:quickstart", "--devices=2xA100-80G", f"--workdir={tmp_path}")
    small = ("--config.train.batch_size=4", "--config.grpo.group=2", "--config.rollout.max_tokens=16")
    result = run(*flags, *small)
    assert result.returncode == 0, result.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["devices"] == 2 and plan["mesh"] == {"data": 2, "fsdp": 1, "tensor": 1}
    assert plan["shapes"] == {"B": 4, "G": 2, "N": 8, "P": 160, "R": 16, "parts": 1}
    assert set(plan["compiled"]) == {"update", "prefill", "decode", "update_largest_batch"}
    # Prompts and completions each reduce the adapter's gradients; a ring of two sends each byte once.
    reduced = plan["compiled"]["update"]["wire"]
    assert set(reduced) == {"all-reduce"}
    gradients = 2 * plan["bytes_a_device"]["gradients"]
    assert gradients <= reduced["all-reduce"] < gradients + 200
    assert plan["compiled"]["decode"]["wire"] == {}
    assert plan["fits"] is True and plan["largest_batch_size"] > 4
    assert f"{plan['parameters']['model']:,}" in result.stdout
    assert "A100-80G" in result.stdout

    again = run(*flags)
    line = f"error: {tmp_path}/plan.json already exists: add --overwrite to write it again\n"
    assert (again.returncode, again.stdout, again.stderr) == (2, "", line)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((), "--devices is missing: e.g. --devices=2xA100-80G"),
        (
            ("--devices=2xB900",),
            "--devices=2xB900: write COUNTxNAME, e.g. 2xA100-80G, with one of A100-40G, A100-80G, "
            "H100-80G, H200-141G",
        ),
        (
            ("--devices=3xA100-80G", "--config.mesh.fsdp=2"),
            "mesh fsdp=2 x tensor=1 does not divide the 3 devices: choose sizes that do",
        ),
        (
            ("--devices=3xA100-80G",),
            "train.batch_size 16 must be a multiple of train.micro_batches 1 x 3 devices of the data and "
            "fsdp axes",
        ),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(flags, line):
    result = run("--config=configs/sft.py", *flags)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {line}\n")
