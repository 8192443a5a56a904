"""Slices of tensors in files against NumPy, whatever the sizes of chunks, tiles and threads."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from r2rec_jax.model import shards
from r2rec_jax.runtime.errors import UserError


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (128, 128), (300, 129), (5, 700)])
def test_transposing_in_tiles(dtype, shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype(dtype)
    out = np.zeros(shape[::-1], dtype)
    shards.transpose_into(out, matrix)
    np.testing.assert_array_equal(out, matrix.T)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    rng = np.random.default_rng(0)
    tensors = {"matrix": rng.normal(size=(700, 50)).astype(np.float32), "vector": np.arange(70.0)}
    file = tmp_path_factory.mktemp("stored") / "x.safetensors"
    safetensors.numpy.save_file(tensors, file)
    return tensors, {name: shards.Stored(file, t.shape, "") for name, t in tensors.items()}


@pytest.mark.parametrize("chunk", [1, 64 << 10, 1 << 30])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    "index", [np.s_[0:700, 0:50], np.s_[0:700, 10:30], np.s_[350:700, 0:50], np.s_[3:4, 49:50]]
)
def test_a_slice_of_a_matrix(stored, monkeypatch, chunk, dtype, transposed, index):
    monkeypatch.setattr(shards, "CHUNK_BYTES", chunk)
    tensors, where = stored
    expected = tensors["matrix"][index].astype(dtype)
    expected = expected.T if transposed else expected
    out = np.zeros(expected.shape, dtype)
    shards.read_slice(out, "matrix", where["matrix"], index, transposed)
    np.testing.assert_array_equal(out, expected)


def test_a_slice_of_a_vector(stored):
    out = np.zeros(20, np.float32)
    shards.read_slice(out, "vector", stored[1]["vector"], np.s_[50:70,], False)
    np.testing.assert_array_equal(out, np.arange(50, 70))


def test_an_error_in_a_reading_thread_is_raised(stored, monkeypatch):
    monkeypatch.setattr(shards, "CHUNK_BYTES", 1)
    out = np.zeros((700, 51), np.float32)
    with pytest.raises(safetensors.SafetensorError):
        shards.read_slice(out, "matrix", stored[1]["matrix"], np.s_[0:700, 0:51], False)


@pytest.mark.parametrize(
    "file",
    [
        "..",
        "",
        "../x.safetensors",
        "/etc/passwd",
        "x" * 300 + ".safetensors",
        "a.bin",
        "\ud800.safetensors",
        3,
    ],
)
def test_an_index_names_files_beside_it_alone(tmp_path, file):
    (tmp_path / shards.INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(UserError, match="does not map tensors to files in its folder; fetch"):
        shards.read_headers(tmp_path, "fetch it again")


def test_a_damaged_header_is_told_in_a_line(tmp_path):
    header = json.dumps({"a": {"dtype": "x\x1b" * 9999, "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match=r"model\.safetensors is damaged .*; fetch it again") as caught:
        shards.read_headers(tmp_path, "fetch it again")
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()
