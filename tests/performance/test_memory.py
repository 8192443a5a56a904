"""Bytes a device: closed forms of what rests there, and activations against XLA's own analysis."""

import jax
import pytest

from configs import grpo as grpo_config
from configs import sft as sft_config
from r2rec_jax.model.architecture import load_config
from r2rec_jax.model.flops import Shapes
from r2rec_jax.performance import programs
from r2rec_jax.performance.memory import device_bytes, estimate, kv_cache_bytes, update_activations
from r2rec_jax.performance.plan import largest_batch, memory_of
from r2rec_jax.runtime.mesh import make_mesh

LLAMA = {
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
}


@pytest.fixture
def make(monkeypatch):
    """make(stage, **architecture) -> (config, abstract policy, mesh), in float32"""

    def make(stage, remat="block", **changed):
        monkeypatch.setitem(programs.PUBLISHED, "small", LLAMA | changed)
        config = {"sft": sft_config, "grpo": grpo_config}[stage].get_config()
        config.model.update({"folder": "absent/small", "dtype": "float32", "remat": remat})
        mesh = make_mesh(data=1)
        return config, programs.abstract_policy(config, mesh), mesh

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "remat", "architecture", "shapes"),
    [
        ("sft", "block", {}, Shapes(B=4, G=1, P=512, R=128)),
        ("grpo", "block", {}, Shapes(B=2, G=8, P=512, R=256)),
        (
            "grpo",
            "block",
            {"hidden_size": 512, "num_key_value_heads": 4},
            Shapes(B=4, G=4, P=512, R=128, parts=2),
        ),
        ("sft", "dots", {"intermediate_size": 1024}, Shapes(B=4, G=1, P=256, R=256)),
        ("grpo", "dots", {}, Shapes(B=2, G=8, P=512, R=256)),
        ("sft", "none", {"hidden_size": 512}, Shapes(B=4, G=1, P=256, R=256)),
    ],
)
def test_activations_are_within_15_percent_of_xlas(make, stage, remat, architecture, shapes):
    config, policy, mesh = make(stage, remat, **architecture)
    compiled = programs.update(config, policy, mesh, shapes).compile().memory_analysis()
    expected = update_activations(policy.model, mesh, shapes, scores=True) + device_bytes(policy.trainable)
    assert expected == pytest.approx(compiled.temp_size_in_bytes, rel=0.15)


def test_what_rests_on_a_device(make):
    config, policy, mesh = make("grpo")
    shapes = programs.shapes_of(config)
    memory = memory_of(config, policy, mesh, shapes)
    matrices = 256 * (2 * 256 + 2 * 128 + 3 * 512)
    assert memory.base == 4 * (2 * 1024 * 256 + 4 * (matrices + 2 * 256) + 256)
    ranks = 2 * 256 + 2 * 256 + 2 * (256 + 128) + 3 * (256 + 512)
    assert memory.adapter == memory.reference == memory.gradients == 4 * 4 * 16 * ranks
    assert memory.optimizer == 2 * memory.adapter
    # Keys and values, 4 bytes: 8 prompts of 4096 tokens once, 64 completions of 1024.
    assert memory.kv_cache == 4 * 2 * 2 * 64 * 4 * (8 * 4096 + 64 * 1024)
    assert memory.decoder == memory.base + memory.adapter
    assert memory.peak == max(memory.update, memory.rollout)
    sft, policy, mesh = make("sft")
    assert memory_of(sft, policy, mesh, programs.shapes_of(sft)).kv_cache == 0


@pytest.mark.parametrize("kind", ["", "int8"])
def test_the_cache_is_what_the_engine_allocates(make, kind):
    config, policy, mesh = make("grpo")
    config.rollout.update({"max_tokens": 40, "cache": kind})
    shapes = Shapes(B=2, G=3, P=24, R=40)
    state = programs.prefill(config, policy, mesh, shapes).out_info
    kept = [(past.k, past.v, past.k_scale, past.v_scale) for past in (state.prompt, state.own)]
    allocated = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    assert kv_cache_bytes(policy.model, mesh, shapes, int8=bool(kind)) == allocated


def test_the_decoders_copy_is_whole_along_fsdp(make):
    config, _, _ = make("grpo")
    config.rollout.weights = "merged"
    mesh = jax.sharding.AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"))
    policy = programs.abstract_policy(config, mesh)
    split = 2 * 1024 * 256 + 4 * 256 * (2 * 256 + 2 * 128 + 3 * 512)
    whole = (2 * 4 + 1) * 256
    assert device_bytes(programs.decoder_weights(config, policy, mesh)) == 4 * (split // 2 + whole)


def test_largest_batch_is_the_last_that_fits(make):
    config, policy, mesh = make("sft", num_hidden_layers=16)
    shapes = programs.shapes_of(config)
    most = largest_batch(config, policy, mesh, shapes, "A100-40G")
    assert most > 1
    for batch, fits in ((most, True), (most + 1, False)):
        at = Shapes(batch, 1, shapes.P, shapes.R)
        peak = estimate(policy, mesh, at, scores=True).peak
        assert (peak <= 40e9) == fits


def test_the_8b_has_the_published_number_of_parameters():
    config = sft_config.get_config()
    policy = programs.abstract_policy(config, make_mesh(data=1))
    assert sum(leaf.size for leaf in jax.tree.leaves(policy.frozen)) == 8_030_261_248
    assert {leaf.dtype.name for leaf in jax.tree.leaves(policy.frozen)} == {"bfloat16"}
    config.model.quantize = "int8"
    frozen = programs.abstract_policy(config, make_mesh(data=1)).frozen
    linear = 32 * 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336)
    scales = 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096)
    norms = 65 * 4096
    assert device_bytes(frozen) == linear + 4 * scales + 2 * (2 * 128256 * 4096 + norms)


def test_the_embedded_model_has_its_files_parameters():
    safetensors = pytest.importorskip("safetensors")
    config = sft_config.get_config("quickstart")
    policy = programs.abstract_policy(config, make_mesh(data=1))
    assert policy.model.config == load_config(config.model.folder)
    with safetensors.safe_open(f"{config.model.folder}/model.safetensors", "numpy") as file:
        stored = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    assert sum(leaf.size for leaf in jax.tree.leaves(policy.frozen)) == stored
