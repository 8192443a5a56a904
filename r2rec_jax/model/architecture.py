"""The architecture of a Llama, read from the `config.json` of a Hugging Face folder.

Dimension names used in array names, shape comments and einsums throughout the project:

    B  prompts (groups) in a batch        V  vocabulary
    G  completions of one prompt          D  model width
    P  prompt length                      H  query heads
    R  response length                    K  key/value heads
    T  length of a token row              A  width of one head
    L  layers                             F  feed-forward width
    N  B * G, rows of a flat batch of completions
"""

import dataclasses
import sys
from pathlib import Path
from typing import NoReturn

from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.untrusted import parse_json

LARGEST = 1 << 24  # upper limit of any size in the file, against typing errors and memory attacks
MOST_LAYERS = 1 << 10


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency scaling (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Static architecture. Hashable, so that it can be a static argument of a jitted function."""

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


# Fields that change the computed function in Llama and related models, and the only value that this code
# implements. Absent and null also mean this value. Biases, other norms and experts appear as unknown weights.
_MUST_BE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "auto_map": None,
    "quantization_config": None,
    "compression_config": None,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    # Only used in training with torch, but there it changes the function.
    "attention_dropout": 0.0,
    "is_causal": True,
    "use_bidirectional_attention": False,
    "sliding_window": None,
    "attention_chunk_size": None,
    "no_rope_layers": None,
    "no_rope_layer_interval": None,
    "rope_interleaved": False,
    "partial_rotary_factor": 1.0,
    "clip_qkv": None,
    "use_qk_norm": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "query_pre_attn_scalar": None,
    "embedding_multiplier": 1.0,
    "attention_multiplier": None,
    "residual_multiplier": 1.0,
    "logits_scaling": 1.0,
    "logit_scale": 1.0,
}


class _Fields:
    """Typed access to the fields of a JSON object. Every error is one line with the field's name."""

    def __init__(self, raw: dict, where: str, prefix: str = ""):
        self.raw, self.where, self.prefix = raw, where, prefix

    def must_be(self, name: str, wanted) -> None:
        value = self.raw.get(name)
        if value is not None and value != wanted:
            only = "" if wanted is None else f", only {wanted!r} is"
            raise UserError(
                f"{self._shown(name)} is not supported{only}; use a plain Llama that is not quantised"
            )

    def whole(self, name: str, default: int | None = None, most: int = LARGEST) -> int:
        """An integer from 1 to `most`."""
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            self._reject(name, f"a whole number above 0, at most {most}")
        return value

    def positive(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value <= sys.float_info.max:
            self._reject(name, "a number above 0")
        return float(value)

    def switch(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            self._reject(name, "true or false")
        return value

    def section(self, name: str) -> dict:
        """A JSON object, {} if the field is absent."""
        value = self._get(name, {})
        if not isinstance(value, dict):
            self._reject(name, "a JSON object")
        return value

    def _get(self, name: str, default):
        value = self.raw.get(name)
        value = default if value is None else value
        if value is None:
            text = f"{self.where}: field {self.prefix + name!r} is missing"
            raise UserError(f"{text}; is this the config.json of a Llama?")
        return value

    def _reject(self, name: str, wanted: str) -> NoReturn:
        raise UserError(f"{self._shown(name)} is not {wanted}; correct that field")

    def _shown(self, name: str) -> str:
        return f"{self.where}: {shown(self.prefix + name, 80)}={shown(repr(self.raw[name]), 80)}"


def parse_config(raw: dict, where: str = "config.json") -> LlamaConfig:
    """Converts a Hugging Face config with the defaults and precedence rules of transformers 5.

    Fields that do not change the function (use_cache, torch_dtype, initializer_range, pretraining_tp, token
    ids) are ignored.

    Raises:
      UserError: a field is missing, unsupported or invalid. The message contains its name.
    """
    fields = _Fields(raw, where)
    for name, wanted in _MUST_BE.items():
        fields.must_be(name, wanted)
    layers = fields.whole("num_hidden_layers", most=MOST_LAYERS)
    if raw.get("layer_types") not in (None, ["full_attention"] * layers):
        raise UserError(f"{where}: layer_types is not {layers} times 'full_attention'; use a plain Llama")
    heads, hidden = fields.whole("num_attention_heads"), fields.whole("hidden_size")
    kv_heads = fields.whole("num_key_value_heads", heads)
    if heads % kv_heads:
        raise UserError(
            f"{where}: num_attention_heads={heads} is not a multiple of num_key_value_heads={kv_heads}; "
            "correct one of them"
        )
    if raw.get("head_dim") is None and hidden % heads:
        raise UserError(
            f"{where}: hidden_size={hidden} is not a multiple of num_attention_heads={heads}; set head_dim"
        )
    head_dim = fields.whole("head_dim", hidden // heads)
    if head_dim % 2:
        raise UserError(f"{where}: head_dim={head_dim} is odd; rotary embedding rotates pairs of channels")
    theta, scaling = _rope(fields)
    return LlamaConfig(
        vocab_size=fields.whole("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.whole("intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.positive("rms_norm_eps"),
        rope_theta=theta,
        rope_scaling=scaling,
        max_position_embeddings=fields.whole("max_position_embeddings"),
        tie_word_embeddings=fields.switch("tie_word_embeddings", False),
    )


def _rope(fields: _Fields) -> tuple[float, RopeScaling | None]:
    """(theta, scaling) from rope_scaling (transformers 4) or rope_parameters (5), which may contain theta."""
    name = "rope_scaling" if fields.section("rope_scaling") else "rope_parameters"
    rope = _Fields(fields.section(name), fields.where, f"{name}.")
    kind = rope.raw.get("rope_type") or rope.raw.get("type") or "default"
    if kind not in ("default", "llama3"):
        raise UserError(
            f"{fields.where}: {name} has the rope type {shown(repr(kind), 80)}, which is not "
            "supported; use 'llama3' or none"
        )
    theta = rope.positive("rope_theta", fields.positive("rope_theta", 10000.0))
    rope.must_be("partial_rotary_factor", 1.0)
    scaled = {field.name for field in dataclasses.fields(RopeScaling)} if kind == "llama3" else set()
    for other in rope.raw.keys() - scaled - {"rope_type", "type", "rope_theta", "partial_rotary_factor"}:
        rope.must_be(other, None)
    if not scaled:
        return theta, None
    scaling = RopeScaling(
        rope.positive("factor"),
        rope.positive("low_freq_factor"),
        rope.positive("high_freq_factor"),
        rope.whole("original_max_position_embeddings"),
    )
    # Some files repeat it at top level, where it has precedence in transformers. The values must be equal.
    fields.must_be("original_max_position_embeddings", scaling.original_max_position_embeddings)
    if scaling.low_freq_factor >= scaling.high_freq_factor:
        raise UserError(
            f"{fields.where}: {name}.low_freq_factor={scaling.low_freq_factor:g} is not below "
            f"high_freq_factor={scaling.high_freq_factor:g}; correct one of them"
        )
    return theta, scaling


def load_config(folder: str | Path) -> LlamaConfig:
    """Reads `folder/config.json`. Raises UserError if it is missing, damaged or unsupported."""
    path = Path(folder) / "config.json"
    try:
        raw = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"no model at {folder}: {path.name} is missing") from None
    except OSError as fault:
        raise UserError(f"{path} cannot be read: {fault.strerror}") from None
    except ValueError as fault:
        raise UserError(f"{path} is not JSON ({fault}); fetch the model folder again") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object; fetch the model folder again")
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
