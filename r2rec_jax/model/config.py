"""Architecture of a Llama, read from the `config.json` of a Hugging Face folder.

Dimension names used in array names, shape comments and einsums all over the project:

    B  prompts (groups) in a batch        V  vocabulary
    G  completions of one prompt          D  model width
    P  prompt length                      H  query heads
    R  response length                    K  key/value heads
    T  length of a token row              A  width of one head
    L  layers                             F  feed-forward width
    N  B * G, rows of a flat batch of completions
"""

import dataclasses
import json
from pathlib import Path

from r2rec_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency scaling (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Static architecture; hashable, so that it can be a static argument of a jitted function."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    max_position_embeddings: int
    tie_word_embeddings: bool


# Fields that change the function computed, and the one value that this code implements.
_MUST_BE = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "sliding_window": None,
    "partial_rotary_factor": 1.0,
}


def parse_config(raw: dict, where: str = "config.json") -> LlamaConfig:
    """Translates a Hugging Face config; raises UserError naming any field that is missing or unsupported."""
    for name, value in _MUST_BE.items():
        if raw.get(name, value) != value:
            raise UserError(
                f"{where}: {name}={raw[name]!r} is not supported, only {value!r} is; use a plain Llama"
            )
    # transformers 5 writes rope_theta and the scaling together as rope_parameters.
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "llama3"):
        raise UserError(f"{where}: rope type {rope_type!r} is not supported; use 'llama3' or none")
    try:
        heads = raw["num_attention_heads"]
        scaling = None
        if rope_type == "llama3":
            scaling = RopeScaling(*(rope[field.name] for field in dataclasses.fields(RopeScaling)))
        return LlamaConfig(
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_hidden_layers=raw["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            rms_norm_eps=raw["rms_norm_eps"],
            rope_theta=raw.get("rope_theta") or rope.get("rope_theta", 10000.0),
            rope_scaling=scaling,
            max_position_embeddings=raw["max_position_embeddings"],
            tie_word_embeddings=raw.get("tie_word_embeddings", False),
        )
    except KeyError as missing:
        raise UserError(f"{where}: field {missing} is missing; is this the config.json of a Llama?") from None


def load_config(folder: str | Path) -> LlamaConfig:
    """Reads `folder/config.json`; raises UserError if it is absent or not a JSON object."""
    path = Path(folder) / "config.json"
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no model at {folder}: {path.name} is missing") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as fault:
        raise UserError(f"{path} is not JSON ({fault}); fetch the model folder again") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} holds no JSON object; fetch the model folder again")
    return parse_config(raw, str(path))


def to_hf(config: LlamaConfig, **extra) -> dict:
    """The `config.json` that transformers needs to load weights exported by this project."""
    raw = dataclasses.asdict(config)
    scaling = raw.pop("rope_scaling")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        **raw,
        "rope_scaling": {"rope_type": "llama3", **scaling} if scaling else None,
        **extra,
    }
