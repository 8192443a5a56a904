"""Model folders: written, read back, read by transformers, and refused when damaged."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from r2rec_jax.model import huggingface, shards
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.runtime.errors import UserError


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def model(request, config):
    config = dataclasses.replace(config, tie_word_embeddings=request.param)
    return config, init_variables(Llama(config), seed=0)["params"]


@pytest.fixture
def folder(model, tmp_path):
    huggingface.save_params(tmp_path / "model", *model, dtype=np.float32)
    return tmp_path / "model"


def rewrite(folder, change):
    """Applies `change` to the folder's dict of tensors."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def test_round_trip(model, folder):
    config, params = huggingface.load_params(folder, np.float32)
    assert config == model[0]
    jax.tree.map(np.testing.assert_array_equal, params, model[1])


def test_round_trip_in_bfloat16(model, tmp_path):
    huggingface.save_params(tmp_path / "model", *model)
    tensors = safetensors.numpy.load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(ml_dtypes.bfloat16)}
    _, params = huggingface.load_params(tmp_path / "model", jnp.bfloat16)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model[1])
    jax.tree.map(np.testing.assert_array_equal, params, rounded)


def test_the_file_has_hugging_face_names_and_layout(model, folder):
    config, params = model
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(
        tensors["model.layers.1.mlp.down_proj.weight"],
        params["layers"]["mlp"]["down_proj"]["kernel"][1].T,
    )
    np.testing.assert_array_equal(tensors["model.embed_tokens.weight"], params["embed_tokens"])
    assert ("lm_head.weight" in tensors) == (not config.tie_word_embeddings)


def test_transformers_reads_the_config(model, folder):
    from transformers import AutoConfig

    read = AutoConfig.from_pretrained(folder)
    ours, scaling = model[0], model[0].rope_scaling
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"):
        assert getattr(read, name) == getattr(ours, name)
    assert read.model_type == "llama"
    assert read.num_key_value_heads == ours.num_key_value_heads
    assert read.tie_word_embeddings == ours.tie_word_embeddings
    rope = read.rope_parameters
    assert (rope["rope_theta"], rope["rope_type"]) == (ours.rope_theta, "llama3")
    assert {name: rope[name] for name in dataclasses.asdict(scaling)} == dataclasses.asdict(scaling)


def test_shards_are_read_together(model, folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for part in range(3):
        names = sorted(tensors)[part::3]
        shard = {name: tensors[name] for name in names}
        safetensors.numpy.save_file(shard, folder / f"model-0000{part + 1}-of-00003.safetensors")
    _, params = huggingface.load_params(folder, np.float32)
    jax.tree.map(np.testing.assert_array_equal, params, model[1])


@pytest.mark.parametrize("model", [True], ids=["tied"], indirect=True)
def test_an_untied_copy_of_a_tied_head_is_ignored(model, folder):
    """Some published tied models carry lm_head.weight as well; transformers ties over it."""
    assert model[0].tie_word_embeddings
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
    _, params = huggingface.load_params(folder, np.float32)
    assert "lm_head" not in params


def test_every_fault_is_in_one_line(folder):
    def damage(tensors):
        del tensors["model.norm.weight"]
        del tensors["model.layers.0.mlp.up_proj.weight"]
        tensors["model.layers.7.mlp.up_proj.weight"] = np.zeros((28, 20), np.float32)
        tensors["model.embed_tokens.weight"] = np.zeros((53, 21), np.float32)
        tensors["model.layers.1.self_attn.k_proj.weight"] = np.zeros((20, 12), np.float32)

    rewrite(folder, damage)
    with pytest.raises(UserError) as refusal:
        huggingface.load_params(folder, np.float32)
    message = str(refusal.value)
    assert "\n" not in message
    missing, unknown, misshaped = message.split("; ")[:3]
    assert "model.norm.weight" in missing and "model.layers.0.mlp.up_proj.weight" in missing
    assert "missing: " in missing and "unknown: model.layers.7.mlp.up_proj.weight" in unknown
    assert "model.embed_tokens.weight [53, 21] instead of [53, 20]" in misshaped
    assert "model.layers.1.self_attn.k_proj.weight [20, 12] instead of [12, 20]" in misshaped


def test_many_faults_are_counted(folder):
    rewrite(folder, lambda t: [t.pop(name) for name in list(t) if "layers" in name])
    with pytest.raises(UserError, match="and 13 more"):
        huggingface.load_params(folder, np.float32)


@pytest.mark.parametrize("keep", [0, 5, 100, -10])
def test_a_truncated_file_is_named(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        huggingface.load_params(folder, np.float32)


def damage(folder, name, dtype, data_bytes):
    """Gives one tensor of the folder another dtype, in safetensors' own name, by rewriting the header."""
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    shape, (start, end) = header[name]["shape"], header[name]["data_offsets"]
    assert end - start == 4 * int(np.prod(shape))
    # The others keep their places: the tensor's bytes are cut and everything behind moves up.
    cut = end - start - data_bytes * int(np.prod(shape))
    for entry in header.values():
        if "data_offsets" in entry:
            entry["data_offsets"] = [at - cut if at >= end else at for at in entry["data_offsets"]]
    header[name]["dtype"] = dtype
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[: end - cut] + data[end:])


@pytest.mark.parametrize(("dtype", "size"), [("I8", 1), ("U8", 1), ("F8_E4M3", 1), ("I32", 4)])
def test_other_dtypes_are_refused_by_name(folder, dtype, size):
    damage(folder, "model.norm.weight", dtype, size)
    damage(folder, "model.layers.1.mlp.up_proj.weight", dtype, size)
    with pytest.raises(UserError) as refusal:
        huggingface.load_params(folder, np.float32)
    assert "\n" not in str(refusal.value)
    kinds = str(refusal.value).split(": ", 1)[1].split("; ")
    assert kinds[0] == (
        f"wrong dtype: model.layers.1.mlp.up_proj.weight {dtype} instead of one of F32, F16, BF16, "
        f"model.norm.weight {dtype} instead of one of F32, F16, BF16"
    )


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("wanted", [np.float16, jnp.bfloat16, np.float32])
def test_floating_dtypes_are_converted_on_the_way(model, tmp_path, stored, wanted):
    huggingface.save_params(tmp_path / "model", *model, dtype=stored)
    _, params = huggingface.load_params(tmp_path / "model", wanted)
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(stored).astype(wanted), model[1])
    jax.tree.map(np.testing.assert_array_equal, params, rounded)


@pytest.fixture
def sharded(folder):
    """The folder with its tensors over several files and an index."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards.write_tensors(folder, tensors.items(), shard_bytes=8000)
    return folder


def test_files_of_bounded_size_and_their_index(model, folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards.write_tensors(folder, iter(tensors.items()), shard_bytes=8000)
    index = json.loads((folder / shards.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert list(index["weight_map"]) == list(tensors)
    files = sorted(folder.glob("*.safetensors"))
    count = len(files)
    assert count > 2
    assert [file.name for file in files] == [
        f"model-{k + 1:05d}-of-{count:05d}.safetensors" for k in range(count)
    ]
    for file in files:
        held = safetensors.numpy.load_file(file)
        assert {name for name, home in index["weight_map"].items() if home == file.name} == set(held)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= 8000
    _, params = huggingface.load_params(folder, np.float32)
    jax.tree.map(np.testing.assert_array_equal, params, model[1])


def test_files_that_the_index_does_not_name_are_not_read(model, sharded):
    (sharded / "consolidated.safetensors").write_bytes(b"no safetensors")
    _, params = huggingface.load_params(sharded, np.float32)
    jax.tree.map(np.testing.assert_array_equal, params, model[1])


def test_a_file_that_the_index_names_and_is_absent(sharded):
    weight_map = json.loads((sharded / shards.INDEX).read_text())["weight_map"]
    gone = weight_map["model.layers.0.mlp.up_proj.weight"]
    (sharded / gone).unlink()
    with pytest.raises(UserError, match=f"json: absent files: {gone}; fetch"):
        huggingface.load_params(sharded, np.float32)


def test_a_tensor_in_two_files(sharded):
    weight_map = json.loads((sharded / shards.INDEX).read_text())["weight_map"]
    names = sorted(set(weight_map.values()))
    second = safetensors.numpy.load_file(sharded / names[1])
    twice = next(iter(second))
    safetensors.numpy.save_file(
        safetensors.numpy.load_file(sharded / names[0]) | {twice: second[twice]}, sharded / names[0]
    )
    with pytest.raises(UserError, match=rf"in two files: {twice} \({names[0]}, {names[1]}\)"):
        huggingface.load_params(sharded, np.float32)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../b"}}'],
)
def test_a_damaged_index_is_named(sharded, text):
    (sharded / shards.INDEX).write_text(text)
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        huggingface.load_params(sharded, np.float32)


def test_absent_things_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="no model folder"):
        huggingface.load_params(tmp_path / "elsewhere", np.float32)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \*\.safetensors"):
        huggingface.load_params(folder, np.float32)


def test_an_existing_folder_is_kept_unless_told_otherwise(model, folder):
    with pytest.raises(UserError, match="--overwrite"):
        huggingface.save_params(folder, *model)
    huggingface.save_params(folder, *model, overwrite=True, files={"README.md": "A model.\n"})
    assert (folder / "README.md").read_text() == "A model.\n"
