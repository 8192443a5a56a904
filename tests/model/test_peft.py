"""PEFT folders against PEFT's own (tests/golden/make_peft_golden.py); what is more than LoRA is refused."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from r2rec_jax.model import huggingface, peft
from r2rec_jax.model.config import LINEAR_LAYERS, LoRAConfig
from r2rec_jax.model.llama import Llama, head
from r2rec_jax.model.lora import merge
from r2rec_jax.runtime.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"
LOGITS = np.load(GOLDEN / "peft_logits.npz")
WEIGHTS = "adapter_model.safetensors"
CASES = {
    "peft_all_linear": LoRAConfig(2, 8.0),
    "peft_rslora": LoRAConfig(4, 6.0, ("q_proj", "v_proj", "down_proj"), dropout=0.05, use_rslora=True),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(architecture, float32 params) of the model that make_peft_golden.py put its adapters on."""
    folder = tmp_path_factory.mktemp("base")
    arrays = np.load(GOLDEN / "llama_scaled.npz")
    (folder / "config.json").write_text(str(arrays["config"]))
    weights = {
        name.removeprefix("weight/"): arrays[name].astype(np.float32)
        for name in arrays.files
        if name.startswith("weight/")
    }
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    return huggingface.load_params(folder, np.float32)


@pytest.fixture(params=CASES)
def name(request) -> str:
    return request.param


@pytest.fixture
def folder(name, tmp_path) -> Path:
    """A copy of a golden adapter, to be damaged."""
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def logits(model, variables):
    def run(variables):
        return model.apply(variables, LOGITS["tokens"].astype(np.int32))[0] @ head(variables["params"])

    return jax.jit(run)(variables)


def rewrite(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_logits_are_those_of_peft(name, base, assert_close):
    config, params = base
    lora, adapter = peft.load_adapter(GOLDEN / name, config)
    assert lora == CASES[name]
    wanted = LOGITS[f"{name}_logits"]
    assert_close(logits(Llama(config, lora), {"params": params, "lora": adapter}), wanted)
    assert np.abs(wanted - LOGITS["base_logits"]).max() > 0.5 * np.abs(wanted).max()


def test_the_merged_export_has_the_same_logits(name, base, tmp_path, assert_close):
    config, params = base
    lora, adapter = peft.load_adapter(GOLDEN / name, config)
    merged = traverse_util.unflatten_dict(
        dict(merge(traverse_util.flatten_dict(params).items(), adapter, lora))
    )
    huggingface.save_params(tmp_path / "merged", config, merged, dtype=np.float32)
    config, merged = huggingface.load_params(tmp_path / "merged", np.float32)
    assert_close(logits(Llama(config), {"params": merged}), LOGITS[f"{name}_logits"])


def test_a_round_trip_gives_pefts_own_tensors(name, base, tmp_path):
    config, _ = base
    lora, adapter = peft.load_adapter(GOLDEN / name, config)
    peft.save_adapter(tmp_path / "saved", lora, adapter, base_model="a/model")
    ours, theirs = (
        safetensors.numpy.load_file(where / WEIGHTS) for where in (tmp_path / "saved", GOLDEN / name)
    )
    assert ours.keys() == theirs.keys()
    for tensor in ours:
        np.testing.assert_array_equal(ours[tensor], theirs[tensor])
    again = peft.load_adapter(tmp_path / "saved", config)
    assert again[0] == lora
    jax.tree.map(np.testing.assert_array_equal, again[1], adapter)


def test_the_config_written_says_what_pefts_does(name, base, tmp_path):
    lora, adapter = peft.load_adapter(GOLDEN / name, base[0])
    peft.save_adapter(tmp_path / "saved", lora, adapter, base_model="a/model")
    ours, theirs = (
        json.loads((where / "adapter_config.json").read_text())
        for where in (tmp_path / "saved", GOLDEN / name)
    )
    assert ours["base_model_name_or_path"] == "a/model"
    assert set(ours.pop("target_modules")) == set(theirs.pop("target_modules"))
    for field, value in ours.items():
        assert field in theirs and (field == "base_model_name_or_path" or value == theirs[field]), field


def test_leaves_are_float32_whatever_the_file_holds(folder, base):
    tensors = safetensors.numpy.load_file(folder / WEIGHTS)
    halves = {key: value.astype(ml_dtypes.bfloat16) for key, value in tensors.items()}
    safetensors.numpy.save_file(halves, folder / WEIGHTS)
    _, adapter = peft.load_adapter(folder, base[0])
    a = adapter["layers"]["self_attn"]["q_proj"]["a"]
    assert a.dtype == np.float32
    stored = halves["base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"]
    np.testing.assert_array_equal(a[1], stored.T.astype(np.float32))


@pytest.mark.parametrize("targets", ["all-linear", list(LINEAR_LAYERS[::-1])])
def test_targets_by_shorthand_and_in_any_order(targets, tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "peft_rslora", tmp_path / "adapter"))
    rewrite(folder, target_modules=targets)
    assert peft.load_config(folder).targets == LINEAR_LAYERS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "LOHA"),
        ("task_type", "SEQ_CLS"),
        ("bias", "lora_only"),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa_niter_4"),
        ("layers_to_transform", [0]),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 4}),
        ("use_dora", True),
        ("use_qalora", True),
        ("lora_bias", True),
        ("layer_replication", [[0, 2]]),
        ("exclude_modules", ["q_proj"]),
        ("a_field_of_the_future", 1),
        ("target_modules", r".*\.(q|v)_proj"),
        ("target_modules", "q_proj"),
        ("target_modules", ["q_proj", "lm_head"]),
        ("target_modules", None),
        ("target_modules", [["q_proj"]]),
        ("r", "8"),
        ("r", 2.5),
        ("r", 0),
        ("lora_alpha", None),
        ("lora_dropout", 1.5),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(field, value, tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "peft_rslora", tmp_path / "adapter"))
    rewrite(folder, **{field: value})
    with pytest.raises(UserError) as refusal:
        peft.load_config(folder)
    message = str(refusal.value)
    assert "\n" not in message and str(folder) in message
    if field not in ("r", "lora_dropout") or not isinstance(value, int | float):
        assert f"{field}={value!r}" in message


def test_every_misfit_is_in_one_line(folder, base):
    tensors = safetensors.numpy.load_file(folder / WEIGHTS)
    prefix = "base_model.model.model.layers"
    missing, misshaped = (
        f"{prefix}.2.mlp.down_proj.lora_A.weight",
        f"{prefix}.0.self_attn.q_proj.lora_B.weight",
    )
    del tensors[missing]
    tensors[misshaped] = np.ascontiguousarray(tensors[misshaped].T)
    unknown = f"{prefix}.3.self_attn.q_proj.lora_A.weight"
    tensors[unknown] = np.zeros((2, 2), np.float32)
    safetensors.numpy.save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError) as refusal:
        peft.load_adapter(folder, base[0])
    message = str(refusal.value)
    rows, columns = tensors[misshaped].shape
    assert "\n" not in message and str(folder) in message
    assert f"missing: {missing}; unknown: {unknown}; " in message
    assert f"misshaped: {misshaped} [{rows}, {columns}] instead of [{columns}, {rows}]" in message


def test_absent_and_damaged_files_are_named(tmp_path, base):
    folder = tmp_path / "adapter"
    with pytest.raises(UserError, match=r"adapter_config\.json is missing"):
        peft.load_adapter(folder, base[0])
    shutil.copytree(GOLDEN / "peft_rslora", folder)
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-10])
    with pytest.raises(UserError, match=rf"{WEIGHTS} is damaged"):
        peft.load_adapter(folder, base[0])
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match=rf"no {WEIGHTS}"):
        peft.load_adapter(folder, base[0])
    for text in ("{", "[]", "\xff"):
        (folder / "adapter_config.json").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=r"adapter_config\.json"):
            peft.load_adapter(folder, base[0])


@pytest.mark.parametrize(
    "change", [{"lora_alpha": float("nan")}, {"lora_alpha": 10**400}, {"r": 10**30}, {"x": "y" * 99_999}]
)
def test_numbers_that_no_adapter_has_are_named(tmp_path, base, change):
    folder = tmp_path / "adapter"
    shutil.copytree(GOLDEN / "peft_rslora", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=next(iter(change)).removeprefix("lora_")) as caught:
        peft.load_adapter(folder, base[0])
    assert len(str(caught.value)) < 400


def test_an_existing_folder_is_kept_unless_told_otherwise(base, folder):
    lora, adapter = peft.load_adapter(folder, base[0])
    with pytest.raises(UserError, match="--overwrite"):
        peft.save_adapter(folder, lora, adapter, base_model="")
    peft.save_adapter(folder, lora, adapter, base_model="new", overwrite=True)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "new"
