"""Adapters in and out of PEFT folders: `adapter_config.json` beside `adapter_model.safetensors`.

A folder describes one plain LoRA on the linear layers of a causal language model; whatever else PEFT
can write into it changes the function computed and is refused by name.
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

# Fields of adapter_config.json that may hold something, and the values that this code implements; any
# field that is neither here nor below must be empty (null, false, "", [] or {}).
_MUST_BE = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none", None),
    # How fresh adapters were drawn matters only where the base was changed with them (PiSSA, OLoRA, ...).
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
    # Defaults of features that are off unless another field turns them on.
    "megatron_core",
    "qalora_group_size",
}


def load_config(folder: str | Path) -> LoRAConfig:
    """Reads `folder/adapter_config.json`; raises UserError naming the field that is not supported."""
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
        raise UserError(f"{path} holds no JSON object; copy the adapter folder again")
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
            told = shown(f"{name}={value!r}", 120)
            raise UserError(f"{path}: {told} is no number that can be; copy the adapter folder again")
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
      folder: holds adapter_config.json and adapter_model.safetensors.
      config: the base model's architecture.
      shardings: tree of shardings like `lora`; None leaves JAX's default placement.

    Raises:
      UserError: an unsupported field, a damaged file, every missing, unknown or misshaped tensor and wrong
        dtype in one line, or a number that is not finite in float32.
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
            f"{folder} does not fit its {CONFIG} and the base model: {faults}; use the base it was made for"
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
    """Writes a `lora` tree as a folder that PEFT loads, in float32: reading it back is exact.

    `base_model` is recorded as the name or folder of what the adapter was trained on; `made_from` as for
    `made.record`.
    Raises UserError if `folder` exists and `overwrite` is false, or for a number that is not finite.
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
    """PEFT's name for ('layers', 'mlp', 'up_proj', 'a') of layer 3; it stores A as [r, in], B as [out, r]."""
    *where, side = path[1:]
    return f"base_model.model.model.layers.{layer}.{'.'.join(where)}.lora_{side.upper()}.weight"
