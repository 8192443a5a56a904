"""Reading and writing config.json; what this code does not compute is refused by name."""

import copy
import dataclasses
import json
import re

import pytest
import transformers

from r2rec_jax.model.architecture import LlamaConfig, RopeScaling, load_config, parse_config, to_hf
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


def without(*names: str) -> dict:
    return {name: value for name, value in LLAMA_8B.items() if name not in names}


LLAMA3 = LLAMA_8B["rope_scaling"]
# Every way in which published files say what changes the function, and what they hold besides.
LAYOUTS = {
    "as published": LLAMA_8B
    | {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008],
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.0.dev0",
        "use_cache": True,
    },
    "transformers 5": without("rope_theta", "rope_scaling")
    | {"dtype": "bfloat16", "rope_parameters": {"rope_theta": 123.0, **LLAMA3}},
    "transformers 5, no scaling": without("rope_theta", "rope_scaling")
    | {"rope_parameters": {"rope_theta": 123.0, "rope_type": "default"}},
    "theta twice": LLAMA_8B | {"rope_scaling": LLAMA3 | {"rope_theta": 123.0}},
    "scaling twice": LLAMA_8B | {"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}},
    "old key": LLAMA_8B | {"rope_scaling": {"type" if k == "rope_type" else k: LLAMA3[k] for k in LLAMA3}},
    "both keys": LLAMA_8B | {"rope_scaling": LLAMA3 | {"type": "llama3"}},
    "whole numbers": LLAMA_8B | {"rope_theta": 500000, "rope_scaling": LLAMA3 | {"factor": 8}},
    "no scaling": without("rope_scaling"),
    "null scaling": LLAMA_8B | {"rope_scaling": None},
    "default type": LLAMA_8B | {"rope_scaling": {"rope_type": "default"}},
    "no theta": without("rope_theta", "rope_scaling"),
    "like Llama 2": without("rope_theta", "rope_scaling", "num_key_value_heads", "tie_word_embeddings"),
    "null heads": LLAMA_8B | {"num_key_value_heads": None, "head_dim": None},
    "wide heads": LLAMA_8B | {"head_dim": 256},
    "tied": LLAMA_8B | {"tie_word_embeddings": True},
    "layer types": LLAMA_8B | {"layer_types": ["full_attention"] * 32},
    "sharded pretraining": LLAMA_8B | {"pretraining_tp": 2},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_as_transformers_reads_it(name):
    raw = LAYOUTS[name]
    theirs = transformers.LlamaConfig(**copy.deepcopy(raw))  # which it changes
    ours = parse_config(raw)
    for field in dataclasses.fields(ours):
        if not field.name.startswith("rope_"):
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name
    rope = theirs.rope_parameters
    assert ours.rope_theta == rope["rope_theta"]
    assert (ours.rope_scaling is None) == (rope["rope_type"] == "default")
    if ours.rope_scaling is not None:
        assert dataclasses.asdict(ours.rope_scaling).items() <= rope.items()


def test_what_transformers_writes_is_read(config):
    for tied in (False, True):
        changed = dataclasses.replace(config, tie_word_embeddings=tied)
        written = transformers.LlamaConfig(**to_hf(changed))
        for text in (written.to_json_string(), written.to_json_string(use_diff=False)):
            assert parse_config(json.loads(text)) == changed


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
        ("architectures", ["LlamaForSequenceClassification"]),
        ("auto_map", {"AutoModelForCausalLM": "modeling.Other"}),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("compression_config", {"format": "int"}),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("attention_dropout", 0.1),
        ("mlp_bias", True),
        ("is_causal", False),
        ("use_bidirectional_attention", True),
        ("sliding_window", 4096),
        ("attention_chunk_size", 8192),
        ("no_rope_layers", [1, 0]),
        ("no_rope_layer_interval", 4),
        ("rope_interleaved", True),
        ("partial_rotary_factor", 0.5),
        ("clip_qkv", 8.0),
        ("use_qk_norm", True),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("query_pre_attn_scalar", 256),
        ("embedding_multiplier", 12.0),
        ("attention_multiplier", 0.01),
        ("residual_multiplier", 0.22),
        ("logits_scaling", 8.0),
        ("logit_scale", 0.06),
    ],
)
def test_unsupported_fields_are_named(field, value):
    with pytest.raises(UserError, match=re.escape(f"config.json: {field}={value!r} is not supported")):
        parse_config(LLAMA_8B | {field: value})
    assert parse_config(LLAMA_8B | {field: None}) == parse_config(LLAMA_8B)


@pytest.mark.parametrize("layer_types", [["sliding_attention"] * 32, ["full_attention"] * 31, "all", [[]]])
def test_layers_of_another_attention_are_named(layer_types):
    with pytest.raises(UserError, match="layer_types"):
        parse_config(LLAMA_8B | {"layer_types": layer_types})


def test_a_long_value_is_cut():
    modules = {"ignore": [f"model.layers.{k}.mlp" for k in range(500)]}
    with pytest.raises(UserError, match=r"quantization_config=.* is not supported") as error:
        parse_config(LLAMA_8B | {"quantization_config": modules})
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("rope_type", ["yarn", "linear", "dynamic"])
@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_unsupported_rope_is_named(rope_type, key):
    with pytest.raises(UserError, match=f"rope type '{rope_type}'"):
        parse_config(LLAMA_8B | {"rope_scaling": {key: rope_type, "factor": 2.0}})


@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "vocab_size"])
def test_missing_fields_are_named(field):
    with pytest.raises(UserError, match=f"field '{field}' is missing"):
        parse_config({k: v for k, v in LLAMA_8B.items() if k != field})


@pytest.mark.parametrize("section", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(
    ("rope", "told"),
    [
        ({"rope_type": "llama3", "factor": 8.0}, "field '{}.low_freq_factor' is missing"),
        ({k: v for k, v in LLAMA3.items() if "original" not in k}, "is missing"),
        (LLAMA3 | {"low_freq_factor": 4.0}, "{}.low_freq_factor=4 is not below high_freq_factor=4"),
        (LLAMA3 | {"low_freq_factor": 0}, "{}.low_freq_factor=0 is not a number above 0"),
        (LLAMA3 | {"factor": -8.0}, "{}.factor=-8.0 is not a number above 0"),
        (LLAMA3 | {"factor": "8"}, "{}.factor='8' is not a number above 0"),
        (LLAMA3 | {"original_max_position_embeddings": 8192.0}, "is not a whole number above 0"),
        (LLAMA3 | {"partial_rotary_factor": 0.5}, "{}.partial_rotary_factor=0.5 is not supported"),
        (LLAMA3 | {"attention_factor": 1.2}, "{}.attention_factor=1.2 is not supported"),
        ({"rope_type": "default", "mrope_section": [16]}, "{}.mrope_section=[16] is not supported"),
        ({"factor": 4.0}, "{}.factor=4.0 is not supported"),  # transformers drops it
        ({"full_attention": dict(LLAMA3)}, "{}.full_attention={{'factor': 8.0, "),
        ({"rope_theta": 0}, "{}.rope_theta=0 is not a number above 0"),
        ("llama3", "{}='llama3' is not a JSON object"),
        ([8.0], "{}=[8.0] is not a JSON object"),
    ],
)
def test_faults_of_the_scaling_are_named(section, rope, told):
    raw = without("rope_scaling") | {section: rope}
    with pytest.raises(UserError, match=re.escape(told.format(section))):
        parse_config(raw)


def test_two_original_lengths_are_refused():
    field = "original_max_position_embeddings"
    assert parse_config(LLAMA_8B | {field: 8192}) == parse_config(LLAMA_8B)
    with pytest.raises(UserError, match=f"{field}=4096 is not supported, only 8192 is"):
        parse_config(LLAMA_8B | {field: 4096})


WHOLE = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
WHOLE += ["num_key_value_heads", "head_dim", "max_position_embeddings"]


@pytest.mark.parametrize("value", ["64", 0, -64, 64.0, True, [64], float("nan")])
@pytest.mark.parametrize("field", WHOLE)
def test_whole_numbers_are_checked(field, value):
    with pytest.raises(UserError, match=re.escape(f"{field}={value!r} is not a whole number above 0")):
        parse_config(LLAMA_8B | {field: value})


@pytest.mark.parametrize("field", WHOLE)
def test_no_size_is_beyond_what_any_model_has(field):
    most = 1024 if field == "num_hidden_layers" else 1 << 24
    with pytest.raises(UserError, match=rf"{field}={10**12} is not a whole number above 0, at most {most}"):
        parse_config(LLAMA_8B | {field: 10**12})


def test_a_message_is_as_long_as_a_line(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(LLAMA_8B | {"rope_scaling": {"rope_type": "x\x1b" * 99_999}})
    )
    with pytest.raises(UserError, match="which is not supported") as caught:
        load_config(tmp_path)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()
    odd = LLAMA_8B | {"rope_scaling": LLAMA3 | {"x" * 99_999: 1}}
    with pytest.raises(UserError, match=r"rope_scaling\.x+ \.\.\. x+=1 is not supported") as caught:
        parse_config(odd)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", ["1e-5", 0, -1e-5, True, float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("field", ["rms_norm_eps", "rope_theta"])
def test_numbers_are_checked(field, value):
    with pytest.raises(UserError, match=f"{field}=.* is not a number above 0"):
        parse_config(LLAMA_8B | {field: value})


@pytest.mark.parametrize("value", ["false", 0, 1, []])
def test_switches_are_checked(value):
    with pytest.raises(UserError, match=r"tie_word_embeddings=.* is not true or false"):
        parse_config(LLAMA_8B | {"tie_word_embeddings": value})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_size": 4095}, "hidden_size=4095 is not a multiple of num_attention_heads=32"),
        ({"num_key_value_heads": 5}, "num_attention_heads=32 is not a multiple of num_key_value_heads=5"),
        ({"num_key_value_heads": 64}, "num_attention_heads=32 is not a multiple of num_key_value_heads=64"),
        ({"head_dim": 127}, "head_dim=127 is odd"),
    ],
)
def test_impossible_shapes_are_named(changes, told):
    with pytest.raises(UserError, match=told):
        parse_config(LLAMA_8B | changes)


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe", b"", b"[]", b"null", b"[" * 200_000, b"[" * 500 + b"]" * 500, b"9" * 5000]
)
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        load_config(tmp_path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load_config(tmp_path)


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json cannot be read: Is a directory"):
        load_config(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B), encoding="utf-8-sig")
    assert load_config(tmp_path) == parse_config(LLAMA_8B)
