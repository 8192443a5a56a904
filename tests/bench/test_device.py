"""The device's table at small size, its targets, and that its programs lower for CUDA."""

import jax
import numpy as np
import pytest

from r2rec_jax.bench import device
from r2rec_jax.bench.random_programs import NEVER, Programs
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.engine import Engine, Prompts
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train.grpo import GRPOBatch

TINY = device.SIZES["tiny"]


@pytest.fixture(scope="module")
def programs():
    return Programs(TINY.config, TINY.dtype, TINY.remat)


def lowers_for_cuda(program, *arguments, **options) -> bool:
    lowered = program.trace(*arguments, **options).lower(lowering_platforms=("cuda",))
    return "stablehlo.dot_general" in lowered.as_text()


def test_programs_lower_for_cuda(programs):
    B, G, P, R = TINY.grpo
    batch = device.completions(TINY.config, B, G, P, R)
    assert lowers_for_cuda(programs.steps["sft"], programs.state, programs.frozen["sft"], batch)
    zeros_NR = np.zeros((B * G, R), np.float32)
    experience = GRPOBatch(batch, zeros_NR[:, 0], zeros_NR)
    assert lowers_for_cuda(programs.steps["grpo"], programs.state, programs.frozen["grpo"], experience)
    D, V = TINY.config.hidden_size, TINY.config.vocab_size
    hidden_MD, head_DV = np.zeros((TINY.head, D), np.float32), np.zeros((D, V), np.float32)
    assert lowers_for_cuda(device.head_gradient(), hidden_MD, head_DV, np.zeros(TINY.head, np.int32))

    engine = Engine(
        programs.model, NEVER, RolloutConfig(max_tokens=R, temperature=1.0, chunk=4, weights="merged")
    )
    weights = jax.eval_shape(engine._copy, programs.variables)
    prompts = Prompts(batch.prompt, batch.prompt_length, np.arange(B, dtype=np.int32))
    fill = weights, prompts, np.arange(B, dtype=np.int32), jax.random.key(0)
    assert lowers_for_cuda(engine._fill, *fill, samples=G)
    state = jax.eval_shape(lambda *each: engine._fill(*each, samples=G), *fill)
    assert lowers_for_cuda(engine._decode, weights, state)


def test_a_step_changes_the_adapter_and_no_weight(programs):
    before = jax.device_get(programs.variables)
    metrics = programs.train("sft", device.completions(TINY.config, 2, 1, 12, 4))
    after = jax.device_get(programs.variables)
    # Weights of 0.02 predict nearly nothing.
    assert float(metrics["train/loss"]) == pytest.approx(np.log(TINY.config.vocab_size), abs=0.2)
    jax.tree.map(np.testing.assert_array_equal, before["params"], after["params"])
    assert all(
        np.abs(a - b).max() > 0
        for a, b in zip(jax.tree.leaves(before["lora"]), jax.tree.leaves(after["lora"]), strict=True)
    )


def test_only_known_models_on_the_device_that_is_there():
    with pytest.raises(UserError, match="--model=llama4 is unknown: use one of llama3_8b, tiny"):
        device.run("cpu", "llama4")
    with pytest.raises(UserError, match="--device=gpu: JAX runs on a cpu here"):
        device.run("gpu", "tiny")


@pytest.mark.slow
def test_the_table_at_small_size(monkeypatch):
    """As the 8B's, on a card whose targets these are: the small model misses none of them."""
    kind = jax.local_devices()[0].device_kind
    targets = {"sft": (100.0, 200.0), "epoch": (1e6, 5e5)}
    monkeypatch.setattr(device, "copy_bandwidth", lambda: 1e6)
    monkeypatch.setattr(device, "TARGETS", {kind: targets})
    monkeypatch.setattr(device, "SIZES", {"llama3_8b": TINY})
    rows = device.run("cpu", "llama3_8b")
    assert [row.unit for row in rows] == ["s", "MB", "tokens/s", "GB/s", "s", "s", "tokens/s", "min"]
    assert all(row.ours > 0 for row in rows)
    rate, epoch = rows[2], rows[-1]
    assert (rate.peer, rate.target, rate.limit) == (100.0, 1.0, 2.0)
    assert rate.ratio == pytest.approx(rate.ours / 100) and rate.met is (rate.ours >= 100)
    assert (epoch.peer, epoch.limit) == (1e6, 2.0) and epoch.ratio == pytest.approx(1e6 / epoch.ours)
    assert (rows[3].peer, rows[3].target, rows[3].limit) == (0.001, 0.7, 1.0)
    assert rows[0].peer is None and rows[5].target == 1.6
