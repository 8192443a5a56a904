"""Reading and writing config.json; what this code does not compute is refused by name."""

import dataclasses
import json

import pytest

from r2rec_jax.model.config import LlamaConfig, RopeScaling, load_config, parse_config, to_hf
from r2rec_jax.runtime.errors import UserError

# The fields of DeepSeek-R1-Distill-Llama-8B that matter.
LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": False,
}


def test_the_8b():
    assert parse_config(LLAMA_8B) == LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
        max_position_embeddings=131072,
        tie_word_embeddings=False,
    )


def test_the_layout_of_transformers_5():
    """rope_theta and the scaling stand together in rope_parameters."""
    raw = {k: v for k, v in LLAMA_8B.items() if k not in ("rope_theta", "rope_scaling")}
    raw["rope_parameters"] = {"rope_theta": 500000.0, **LLAMA_8B["rope_scaling"]}
    assert parse_config(raw) == parse_config(LLAMA_8B)
    raw["rope_parameters"] = {"rope_theta": 123.0, "rope_type": "default"}
    assert parse_config(raw).rope_theta == 123.0
    assert parse_config(raw).rope_scaling is None


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_round_trip(config, tied, scaled):
    changed = dataclasses.replace(
        config,
        tie_word_embeddings=tied,
        rope_scaling=config.rope_scaling if scaled else None,
    )
    assert parse_config(json.loads(json.dumps(to_hf(changed)))) == changed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "qwen2"),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("pretraining_tp", 2),
        ("sliding_window", 4096),
        ("partial_rotary_factor", 0.5),
    ],
)
def test_unsupported_fields_are_named(field, value):
    with pytest.raises(UserError, match=f"{field}={value!r}"):
        parse_config(LLAMA_8B | {field: value})


@pytest.mark.parametrize("rope_type", ["yarn", "linear", "dynamic"])
@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_unsupported_rope_is_named(rope_type, key):
    with pytest.raises(UserError, match=f"rope type '{rope_type}'"):
        parse_config(LLAMA_8B | {"rope_scaling": {key: rope_type, "factor": 2.0}})


@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "vocab_size"])
def test_missing_fields_are_named(field):
    with pytest.raises(UserError, match=f"field '{field}' is missing"):
        parse_config({k: v for k, v in LLAMA_8B.items() if k != field})


def test_missing_fields_of_the_scaling_are_named():
    with pytest.raises(UserError, match="'low_freq_factor' is missing"):
        parse_config(LLAMA_8B | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}})


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[]", b"null"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        load_config(tmp_path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load_config(tmp_path)
