"""A run's adapter out of its workdir: as PEFT folder and merged into its base."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from configs import sft as sft_config
from launch.convert import export
from r2rec_jax.model import huggingface, peft
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, head, init_variables
from r2rec_jax.model.policy import lora_config
from r2rec_jax.runtime.checkpoint import Checkpointer
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import CHECKPOINTS, TrainState

ARCHITECTURE = LlamaConfig(31, 16, 24, 2, 4, 2, 4, 1e-5, 1000.0, None, 64, False)
TOKENS = np.arange(10, dtype=np.int32).reshape(2, 5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, base params, adapter) as an SFT run would leave them."""
    folder = tmp_path_factory.mktemp("run")
    params = init_variables(Llama(ARCHITECTURE), seed=0)["params"]
    huggingface.save_params(
        folder / "base", ARCHITECTURE, params, dtype=np.float32, files={"README.md": "A card.\n"}
    )
    config = sft_config.get_config("quickstart")
    config.model.folder = str(folder / "base")
    config.lora.update({"rank": 3, "alpha": 5.0, "use_rslora": True, "targets": ("q_proj", "down_proj")})
    rng = np.random.default_rng(0)
    fresh = init_variables(Llama(ARCHITECTURE, lora_config(config.lora)), seed=0)["lora"]
    adapter = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), fresh)
    workdir = folder / "sft"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    state = TrainState.create({"lora": jax.device_put(adapter)}, make_optimizer(config.optimizer, 5))
    with Checkpointer(workdir / CHECKPOINTS) as checkpoints:
        checkpoints.save(5, state, {})
    return workdir, params, adapter


def test_the_adapter_in_pefts_form(run, tmp_path, capsys):
    workdir, _, adapter = run
    export(workdir, tmp_path / "adapter", False, "bfloat16", False)
    lora, read = peft.load_adapter(tmp_path / "adapter", ARCHITECTURE)
    assert (lora.rank, lora.alpha, lora.use_rslora, lora.targets) == (3, 5.0, True, ("q_proj", "down_proj"))
    jax.tree.map(np.testing.assert_array_equal, read, adapter)
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(workdir.parent / "base")
    assert "rank 3" in capsys.readouterr().out
    with pytest.raises(UserError, match="--overwrite"):
        export(workdir, tmp_path / "adapter", True, "bfloat16", False)


def test_the_adapter_merged_into_its_base(run, tmp_path):
    workdir, params, adapter = run
    export(workdir, tmp_path / "merged", True, "float32", False)
    _, merged = huggingface.load_params(tmp_path / "merged", np.float32)
    model = Llama(ARCHITECTURE, LoRAConfig(3, 5.0, ("q_proj", "down_proj"), use_rslora=True))

    def logits(model, variables):
        return jax.jit(lambda v: model.apply(v, TOKENS)[0] @ head(v["params"]))(variables)

    wanted = logits(model, {"params": params, "lora": adapter})
    np.testing.assert_allclose(logits(Llama(ARCHITECTURE), {"params": merged}), wanted, rtol=0, atol=1e-5)
    unmerged = logits(Llama(ARCHITECTURE), {"params": params})
    assert np.abs(wanted - unmerged).max() > 0.05
    changed = {
        path[-2]
        for path, leaf in traverse_util.flatten_dict(merged).items()
        if not np.array_equal(leaf, traverse_util.flatten_dict(params)[path])
    }
    assert changed == {"q_proj", "down_proj"}
    assert (tmp_path / "merged" / "README.md").exists()


def test_what_is_no_adapters_run_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="no workdir of"):
        export(tmp_path / "nowhere", tmp_path / "out", False, "float32", False)
    other = tmp_path / "pretrain"
    other.mkdir()
    config = json.loads((run[0] / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"stage": "pretrain"}))
    with pytest.raises(UserError, match="not an adapter"):
        export(other, tmp_path / "out", False, "float32", False)
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no checkpoints"):
        export(other, tmp_path / "out", False, "float32", False)
    (other / "config.json").write_text("[]")
    with pytest.raises(UserError, match="no workdir of"):
        export(Path(other), tmp_path / "out", False, "float32", False)
    assert not (tmp_path / "out").exists()


def test_the_best_checkpoint_if_asked(run, tmp_path):
    workdir, _, adapter = run
    config = json.loads((workdir / "config.json").read_text())
    other = tmp_path / "grpo"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config))
    with Checkpointer(other / CHECKPOINTS) as checkpoints:
        for step, factor in ((3, 1.0), (6, 2.0)):
            scaled = jax.tree.map(lambda leaf, factor=factor: jax.numpy.asarray(factor * leaf), adapter)
            state = TrainState.create(
                {"lora": scaled}, make_optimizer(sft_config.get_config("quickstart").optimizer, 5)
            )
            checkpoints.save(step, state, {"watch": {"best_step": 3}}, best=3)
    for which, factor in (("latest", 2), ("best", 1)):
        export(other, tmp_path / which, False, "bfloat16", False, which)
        _, read = peft.load_adapter(tmp_path / which, ARCHITECTURE)
        jax.tree.map(
            lambda got, one, factor=factor: np.testing.assert_array_equal(got, factor * one), read, adapter
        )
