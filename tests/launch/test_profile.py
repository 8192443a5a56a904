"""launch.profile on a random model."""

import dataclasses
import json
from pathlib import Path

import pytest

from launch import profile
from r2rec_jax.runtime.errors import UserError


@dataclasses.dataclass
class Flag:
    """A flag that was given a value."""

    value: object


@pytest.fixture
def profiling(monkeypatch):
    """launch.profile of one step beside ceilings that cost nothing to measure."""
    monkeypatch.setattr(profile, "STEPS", Flag(1))
    monkeypatch.setattr(profile, "HLO", Flag(True))
    monkeypatch.setattr(profile, "matmul_flops", lambda _: 1e11)
    monkeypatch.setattr(profile, "copy_bandwidth", lambda: 1e10)
    return profile.main


def test_a_profile_of_sft(road, tmp_path, profiling):
    workdir = tmp_path / "profile"
    profiling(road.sft, workdir, False)
    found = json.loads((workdir / "profile.json").read_text())
    assert [one["name"] for one in found["phases"]] == ["input", "update", "rest"]
    (update,) = (one for one in found["programs"] if one["name"] == "placed_step")
    # The closed form leaves adapters out, and the half of attention that the program computes and hides.
    assert 1 < update["flops"] / found["utilisation"]["update"]["flops_4n"] < 2
    scopes = {one["scope"] for one in found["scopes"]}
    assert {"loss_and_gradient/prefill/mlp/up_proj", "loss_and_gradient/loss_head", "optimizer"} <= scopes
    assert found["compile"]["while_measured"] == 0
    assert (workdir / "trace").is_dir() and not (workdir / "checkpoints").exists()
    dumped = [path.read_text() for path in (workdir / "hlo").iterdir()]
    assert any(text.startswith("HloModule jit_placed_step") for text in dumped)
    with pytest.raises(UserError, match="already exists"):
        profiling(road.sft, workdir, False)
    with pytest.raises(UserError, match="has a training run"):
        profiling(road.sft, Path(road.at("sft")), False)


def test_a_profile_of_rollout_and_grpo(road, tmp_path, profiling, capsys):
    profiling(road.grpo, tmp_path, False)
    found = json.loads((tmp_path / "profile.json").read_text())
    assert [one["name"] for one in found["phases"]] == ["input", "rollout", "reward", "update", "rest"]
    scopes = {(one["program"], one["scope"].split("/")[0]) for one in found["scopes"]}
    assert {("decode_impl", "decode"), ("decode_impl", "sample"), ("fill_impl", "prefill")} <= scopes
    assert {("placed_step", "reference"), ("placed_step", "loss_and_gradient")} <= scopes
    assert found["utilisation"]["rollout"]["of_best"] > 0
    assert "decode_impl" in capsys.readouterr().out
