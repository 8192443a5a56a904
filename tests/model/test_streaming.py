"""Weights read straight into their shardings: on eight virtual devices and by two processes."""

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from r2rec_jax.model import huggingface, shards, weights
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.llama import Llama, abstract_variables, init_variables
from r2rec_jax.runtime import mesh as meshes

ROOT = Path(__file__).parents[2]
# Every axis of every parameter divides by 8.
CONFIG = LlamaConfig(64, 32, 48, 2, 8, 8, 6, 1e-5, 1000.0, None, 256, False)
MESHES = [sizes for sizes in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(sizes) == 8]


def expected_params(folder: Path) -> dict:
    """The folder's parameters by path, from whole tensors: stacked over layers, matrices transposed."""
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= safetensors.numpy.load_file(file)
    expected = {
        ("embed_tokens",): tensors["model.embed_tokens.weight"],
        ("lm_head",): tensors["lm_head.weight"].T,
        ("norm", "scale"): tensors["model.norm.weight"],
    }
    for name in ("input_layernorm", "post_attention_layernorm"):
        layers = [tensors[f"model.layers.{layer}.{name}.weight"] for layer in range(2)]
        expected["layers", name, "scale"] = np.stack(layers)
    for name in (
        "self_attn.q",
        "self_attn.k",
        "self_attn.v",
        "self_attn.o",
        "mlp.gate",
        "mlp.up",
        "mlp.down",
    ):
        layers = [tensors[f"model.layers.{layer}.{name}_proj.weight"].T for layer in range(2)]
        expected["layers", *f"{name}_proj".split("."), "kernel"] = np.stack(layers)
    return expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model in several files and an index."""
    folder = tmp_path_factory.mktemp("streaming") / "model"
    params = init_variables(Llama(CONFIG), seed=0)["params"]
    huggingface.save_params(folder, CONFIG, params, dtype=np.float32)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards.write_tensors(folder, tensors.items(), shard_bytes=40_000)
    assert len(list(folder.glob("*.safetensors"))) == 3
    return folder


class Counted:
    """safe_open that adds up the bytes of the slices that it hands out."""

    opener, read = shards.safetensors.safe_open, 0

    def __init__(self, *arguments):
        self.handle = Counted.opener(*arguments)

    def __enter__(self):
        self.handle.__enter__()
        return self

    def __exit__(self, *error):
        return self.handle.__exit__(*error)

    def keys(self):
        return self.handle.keys()

    def get_slice(self, name):
        return CountedSlice(self.handle.get_slice(name))


class CountedSlice:
    def __init__(self, tensor):
        self.get_shape, self.get_dtype, self.tensor = tensor.get_shape, tensor.get_dtype, tensor

    def __getitem__(self, index):
        part = self.tensor[index]
        Counted.read += part.nbytes
        return part


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(shards.safetensors, "safe_open", Counted)
    monkeypatch.setattr(Counted, "read", 0)
    return Counted


@pytest.mark.slow
def test_on_eight_devices(run_on_eight_devices):
    run_on_eight_devices()


def assert_placed(params, placed, expected):
    placed = traverse_util.flatten_dict(placed)
    params = traverse_util.flatten_dict(params)
    assert set(params) == set(expected)
    for path, leaf in params.items():
        assert leaf.sharding == placed[path] and leaf.is_fully_addressable
        np.testing.assert_array_equal(leaf, expected[path])
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, expected[path][shard.index])


@pytest.mark.eight_devices
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_safetensors_into_every_mesh(folder, counted, sizes):
    placed = meshes.shardings(abstract_variables(Llama(CONFIG)), meshes.make_mesh(*sizes))["params"]
    _, params = huggingface.load_params(folder, np.float32, placed)
    expected = expected_params(folder)
    assert_placed(params, placed, expected)
    # However many devices hold a slice, it is read once.
    assert counted.read == sum(array.nbytes for array in expected.values())


@pytest.fixture(scope="module")
def orbax(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("orbax")
    (target / "config.json").write_text((folder / "config.json").read_text())
    weights.save_orbax(target, huggingface.read_params(folder, np.float32)[1])
    return target


@pytest.mark.eight_devices
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_orbax_into_every_mesh(folder, orbax, sizes):
    placed = meshes.shardings(abstract_variables(Llama(CONFIG)), meshes.make_mesh(*sizes))["params"]
    _, params = weights.load_weights(orbax, np.float32, placed)
    assert_placed(params, placed, expected_params(folder))


def process(rank: int, port: int, folder: str) -> None:
    """One of two processes with four devices each; prints what it read and whether it is right."""
    jax.distributed.initialize(f"localhost:{port}", 2, rank)
    assert (jax.device_count(), jax.local_device_count()) == (8, 4)
    mesh = meshes.make_mesh(data=1, fsdp=2, tensor=4)
    placed = meshes.shardings(abstract_variables(Llama(CONFIG)), mesh)["params"]
    shards.safetensors.safe_open = Counted
    _, params = huggingface.load_params(folder, jnp.float32, placed)
    expected = expected_params(Path(folder))
    for path, leaf in traverse_util.flatten_dict(params).items():
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, expected[path][shard.index])
    print(json.dumps(Counted.read))


@pytest.mark.slow
def test_of_two_processes_each_reads_half(folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(port), str(folder)],
            cwd=ROOT,
            env=os.environ
            | {
                "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": str(ROOT),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [one.communicate(timeout=120) for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [0, 0], outputs
    sizes = {path: array.nbytes for path, array in expected_params(folder).items()}
    whole = sum(size for path, size in sizes.items() if path[-1] == "scale")
    halves = (sum(sizes.values()) - whole) // 2
    assert [json.loads(out.splitlines()[-1]) for out, _ in outputs] == [whole + halves] * 2


if __name__ == "__main__":
    process(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
