"""Model folders from Hugging Face's form into orbax and back, by the command as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from launch.convert import convert
from r2rec_jax.model import weights
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.huggingface import save_params
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.runtime import build_stamp
from r2rec_jax.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIG = LlamaConfig(96, 16, 24, 2, 2, 1, 8, 1e-5, 1000.0, None, 512, False)
COMPANIONS = {"tokenizer.json": '{"a": 1}', "README.md": "A model.\n", "LICENSE": "Free.\n"}


@pytest.fixture
def source(tmp_path):
    """A Hugging Face folder in bfloat16, with what such folders hold besides."""
    folder = tmp_path / "source"
    params = init_variables(Llama(CONFIG), seed=0)["params"]
    save_params(folder, CONFIG, params, files=COMPANIONS | {"weights.bin": "no companion"})
    return folder


def start(*flags, cwd) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "launch.convert", *flags],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tensors(folder: Path) -> dict:
    return safetensors.numpy.load_file(folder / "model.safetensors")


def assert_same_bytes(actual: Path, expected: Path) -> None:
    actual, expected = tensors(actual), tensors(expected)
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype
        assert actual[name].tobytes() == tensor.tobytes(), name


def test_there_and_back_is_the_same_bytes(source, tmp_path):
    orbax, back = tmp_path / "orbax", tmp_path / "back"
    convert(source, orbax, "bfloat16", False)
    convert(orbax, back, "bfloat16", False)
    assert_same_bytes(back, source)
    names = {file.name for file in source.iterdir()} - {"weights.bin"}
    assert {file.name for file in back.iterdir()} == names | {build_stamp.RECORD}
    assert {file.name for file in orbax.iterdir()} == names - {"model.safetensors"} | {
        "params",
        build_stamp.RECORD,
    }
    for folder in (orbax, back):
        for name, text in COMPANIONS.items():
            assert (folder / name).read_text() == text
        raw = json.loads((folder / "config.json").read_text())
        assert raw == json.loads((source / "config.json").read_text())


def test_dtype_is_that_of_the_weights_written(source, tmp_path):
    convert(source, tmp_path / "orbax", "float32", False)
    convert(tmp_path / "orbax", tmp_path / "back", "float16", False)
    found = tensors(tmp_path / "back")
    assert {tensor.dtype for tensor in found.values()} == {np.dtype(np.float16)}
    for name, tensor in tensors(source).items():
        assert tensor.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(found[name], tensor.astype(np.float16))
    for folder, dtype in (("orbax", "float32"), ("back", "float16")):
        assert json.loads((tmp_path / folder / "config.json").read_text())["torch_dtype"] == dtype


def with_weights(source: Path, name: str, values: dict) -> None:
    held = tensors(source)
    held[name] = held[name].astype(np.float32)
    for place, value in values.items():
        held[name][place] = value
    safetensors.numpy.save_file(held, source / "model.safetensors", metadata={"format": "pt"})


Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def test_a_weight_that_float16_has_not_is_refused_by_name(source, tmp_path):
    with_weights(source, Q_PROJ, {(3, 5): 1e5})
    target = tmp_path / "target"
    with pytest.raises(UserError, match=rf"{Q_PROJ} has 100000, above 65504, the largest float16"):
        convert(source, target, "float16", overwrite=False)
    assert not target.exists()
    convert(source, target, "bfloat16", overwrite=False)
    with pytest.raises(UserError, match=rf"{Q_PROJ} has 99840, above 65504, the largest float16"):
        convert(target, tmp_path / "back", "float16", overwrite=False)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_no_number_is_refused_by_name(source, tmp_path, dtype, value):
    with_weights(source, Q_PROJ, {(0, 0): value})
    with pytest.raises(UserError, match=rf"model\.safetensors: {Q_PROJ} has {value}, which is not a weight"):
        convert(source, tmp_path / "target", dtype, overwrite=False)
    assert not (tmp_path / "target").exists()


def test_weights_too_small_for_float16_are_counted_by_name(source, tmp_path, capsys):
    with_weights(source, Q_PROJ, {(0, slice(3)): 2e-8, (1, 0): 5e-8})
    convert(source, tmp_path / "target", "float16", overwrite=False)
    text = f"3 weights are too small for it and became 0, most of them in {Q_PROJ}: 3"
    assert text in capsys.readouterr().out


def test_the_command(source, tmp_path):
    done = start("--source=source", "--target=orbax", cwd=tmp_path)
    out, err = done.communicate()
    assert (done.returncode, out) == (0, "orbax: orbax, bfloat16\n"), err
    assert "100%" in err
    _, params = weights.load_weights(tmp_path / "orbax", ml_dtypes.bfloat16)
    np.testing.assert_array_equal(params["embed_tokens"], tensors(source)["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--source=source",), "--target is missing: name the folder to write"),
        (("--source=source", "orbax"), "unexpected argument 'orbax': flags are written --name=value"),
        (("--source=source", "--taget=a"), "unknown flag --taget: did you mean --target?"),
        (("--source=source", "--config=a"), "this command has no flag --config; --help lists its flags"),
        (
            ("--source=source", "--target=s3://bucket/model"),
            "--target=s3://bucket/model is a URL, not a folder: mount or sync the bucket (docs/machines.md) "
            "and pass the folder",
        ),
    ],
)
def test_flags_that_it_cannot_use(source, flags, line):
    done = start(*flags, cwd=source.parent)
    assert (done.communicate(), done.returncode) == (("", f"error: {line}\n"), 2)
    assert list(source.parent.iterdir()) == [source]


def test_what_it_refuses_leaves_nothing_behind(source, tmp_path):
    with pytest.raises(UserError, match="no model folder"):
        convert(tmp_path / "absent", tmp_path / "target", "bfloat16", False)
    with pytest.raises(UserError, match="are both"):
        convert(source, tmp_path / "x" / ".." / "source", "bfloat16", True)
    held = tensors(source)
    del held["model.norm.weight"]
    safetensors.numpy.save_file(held, source / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: model\.norm\.weight"):
        convert(source, tmp_path / "target", "bfloat16", False)
    assert list(tmp_path.iterdir()) == [source]


def test_an_existing_target_needs_overwrite(source, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").write_text("1")
    with pytest.raises(UserError, match="--overwrite"):
        convert(source, tmp_path / "target", "bfloat16", False)
    assert [file.name for file in (tmp_path / "target").iterdir()] == ["mine"]
    convert(source, tmp_path / "target", "bfloat16", True)
    assert weights.is_orbax(tmp_path / "target") and not (tmp_path / "target" / "mine").exists()


def test_the_same_command_again_finds_its_target_and_another_one_is_refused(source, tmp_path, capsys):
    target = tmp_path / "target"
    convert(source, target, "bfloat16", False)
    (tmp_path / ".target.abcd1234.tmp").mkdir()  # as one leaves it that was killed after its last rename
    capsys.readouterr()
    convert(source, target, "bfloat16", False)
    said = capsys.readouterr().out
    assert said == f"{target} already exists, made from the same files with the same settings\n"
    assert {file.name for file in tmp_path.iterdir()} == {"source", "target"}
    with pytest.raises(UserError, match="already exists"):
        convert(source, target, "float32", False)
    (target / "README.md").unlink()
    with pytest.raises(UserError, match="already exists"):
        convert(source, target, "bfloat16", False)
    convert(source, target, "bfloat16", True)
    (source / "README.md").write_text("Another.\n")
    with pytest.raises(UserError, match="already exists"):
        convert(source, target, "bfloat16", False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "moment"), [("orbax", "config.json"), ("orbax", "params*/**/d/*"), ("safetensors", "*")]
)
def test_a_killed_conversion_leaves_nothing_that_looks_finished(source, tmp_path, form, moment):
    if form == "safetensors":
        convert(source, tmp_path / "orbax", "bfloat16", False)
        source = tmp_path / "orbax"
    before = {file.name for file in tmp_path.iterdir()}
    process = start(f"--source={source}", f"--target={tmp_path / 'target'}", cwd=tmp_path)
    while process.poll() is None and not any(tmp_path.glob(f".target.*/new/{moment}")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = {file.name for file in tmp_path.iterdir()} - before
    # Hidden, and under no name of a model: what was written, and the lock.
    assert len(left) == 2 and ".target.lock" in left and all(name.startswith(".target.") for name in left)
    with pytest.raises(UserError, match="no model folder"):
        weights.load_weights(tmp_path / "target", np.float32)

    convert(source, tmp_path / "target", "bfloat16", False)
    assert {file.name for file in tmp_path.iterdir()} == before | {"target"}
    if form == "orbax":
        convert(tmp_path / "target", tmp_path / "back", "bfloat16", False)
    assert_same_bytes(tmp_path / ("back" if form == "orbax" else "target"), tmp_path / "source")
