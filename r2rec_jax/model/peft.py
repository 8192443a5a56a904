"""Loads and saves adapters in PEFT folders with `adapter_config.json` and `adapter_model.safetensors`.

The only supported adapter is a plain LoRA on the linear layers of a causal language model. Other PEFT
settings change the computed function, so they raise a UserError with the field's name.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util
from flax.linen import meta

from r2rec_jax.model.architecture import LARGEST, LlamaConfig
from r2rec_jax.model.casts import cast
from r2rec_jax.model.config import LINEAR_LAYERS, LoRAConfig
from r2rec_jax.model.huggingface import misfits
from r2rec_jax.model.llama import Llama, abstract_variables
from r2rec_jax.runtime import build_stamp
from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.paths import new_folder
from r2rec_jax.runtime.untrusted import parse_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DTYPES = ("float16", "bfloat16", "float32", "float64")

# Fields of adapter_config.json with the values that this code implements. A field that is neither here nor
# below must be empty (null, false, "", [] or {}).
_MUST_BE = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none", None),
    # The initialization matters only if it also changed the base (PiSSA, OLoRA, ...).
    "init_lora_weights": (True, False, "gaussian"),
}
_DESCRIBE = {
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "target_modules",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "inference_mode",
    "peft_version",
    # Settings of features that are off unless another field enables them.
    "megatron_core",
    "qalora_group_size",
}


def load_config(folder: str | Path) -> LoRAConfig:
    """Reads `folder/adapter_config.json`. Raises UserError with the name of an unsupported field."""
    path = Path(folder) / CONFIG
    try:
        raw = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"no PEFT adapter at {folder}: {CONFIG} is missing") from None
    except OSError as fault:
        raise UserError(f"{path} cannot be read: {fault.strerror}") from None
    except ValueError as fault:
        raise UserError(f"{path} is not JSON ({fault}); copy the adapter folder again") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object; copy the adapter folder again")
    for name, value in raw.items():
        supported = value in _MUST_BE[name] if name in _MUST_BE else name in _DESCRIBE or not value
        if not supported:
            raise UserError(
                f"{path}: {shown(f'{name}={value!r}', 120)} is not supported; use a plain LoRA adapter"
            )
    targets = raw.get("target_modules")
    if isinstance(targets, str) and targets.lower() == "all-linear":
        targets = LINEAR_LAYERS
    if not isinstance(targets, list | tuple) or not all(name in LINEAR_LAYERS for name in targets):
        raise UserError(
            f"{path}: target_modules={shown(repr(targets), 120)} is not supported; use 'all-linear' or a "
            f"list from {', '.join(LINEAR_LAYERS)}"
        )
    numbers = {name: raw.get(name) for name in ("r", "lora_alpha")}
    numbers["lora_dropout"] = raw.get("lora_dropout", 0.0)
    for name, value in numbers.items():
        most = LARGEST if name == "r" else sys.float_info.max
        is_number = isinstance(value, int if name == "r" else int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) <= most:
            setting = shown(f"{name}={value!r}", 120)
            raise UserError(f"{path}: {setting} is not a valid number; copy the adapter folder again")
    try:
        return LoRAConfig(
            rank=numbers["r"],
            alpha=float(numbers["lora_alpha"]),
            targets=tuple(name for name in LINEAR_LAYERS if name in targets),
            dropout=float(numbers["lora_dropout"]),
            use_rslora=bool(raw.get("use_rslora")),
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def load_adapter(folder: str | Path, config: LlamaConfig, shardings=None) -> tuple[LoRAConfig, dict]:
    """Reads a PEFT folder into this project's `lora` tree, float32.

    Args:
      folder: contains adapter_config.json and adapter_model.safetensors.
      config: the base model's architecture.
      shardings: tree of shardings like `lora`. None means JAX's default placement.

    Raises:
      UserError: an unsupported field, a damaged file, missing, unknown or misshaped tensors and wrong dtypes
        (in one line), or a number that is not finite in float32.
    """
    path = Path(folder) / WEIGHTS
    lora = load_config(folder)
    try:
        tensors = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise UserError(f"no {WEIGHTS} in {folder}: save the adapter again as safetensors") from None
    except (safetensors.SafetensorError, OSError) as fault:
        raise UserError(f"{path} is damaged ({shown(fault, 300)}); copy the adapter folder again") from None
    abstract = traverse_util.flatten_dict(meta.unbox(abstract_variables(Llama(config, lora)))["lora"])
    wanted = {
        tensor_name(leaf, layer): shape.shape[:0:-1]
        for leaf, shape in abstract.items()
        for layer in range(shape.shape[0])
    }
    wrong = [f"{name} {tensor.dtype}" for name, tensor in tensors.items() if tensor.dtype not in DTYPES]
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if faults := misfits(found, wanted, {"wrong dtype": wrong}):
        raise UserError(
            f"{folder} does not fit its {CONFIG} and the base model: {faults}; use the base it was trained on"
        )
    placed = traverse_util.flatten_dict(shardings) if shardings is not None else {}
    tree = {}
    for leaf, shape in abstract.items():
        names = [tensor_name(leaf, layer) for layer in range(shape.shape[0])]
        layers = [cast(tensors[name].T, np.float32, f"{path}: {name}") for name in names]
        tree[leaf] = jax.device_put(np.stack(layers), placed.get(leaf))
    return lora, traverse_util.unflatten_dict(tree)


def save_adapter(
    folder: str | Path,
    config: LoRAConfig,
    lora: dict,
    *,
    base_model: str,
    overwrite: bool = False,
    made_from: str = "",
) -> None:
    """Writes a `lora` tree as a folder that PEFT can load, in float32, so that loading it again is exact.

    base_model: name or folder of the model that the adapter was trained on; recorded in the config.
    made_from: as in `build_stamp.record`.

    Raises:
      UserError: `folder` exists and `overwrite` is false, or a number is not finite.
    """
    tensors = {
        tensor_name(path, layer): np.ascontiguousarray(cast(value.T, np.float32, tensor_name(path, layer)))
        for path, leaf in traverse_util.flatten_dict(jax.device_get(lora)).items()
        for layer, value in enumerate(leaf)
    }
    raw = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.use_rslora,
        "target_modules": list(config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    with new_folder(folder, overwrite) as temporary:
        (temporary / CONFIG).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
        safetensors.numpy.save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        if made_from:
            build_stamp.record(temporary, made_from)


def tensor_name(path: tuple[str, ...], layer: int) -> str:
    """PEFT's tensor name of a path, e.g. ('layers', 'mlp', 'up_proj', 'a'), and a layer.

    PEFT stores A as [r, in] and B as [out, r].
    """
    *where, side = path[1:]
    return f"base_model.model.model.layers.{layer}.{'.'.join(where)}.lora_{side.upper()}.weight"
