"""Weights in and out of Hugging Face folders: `config.json` beside `model*.safetensors`."""

import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from r2rec_jax.model.config import LlamaConfig, load_config, to_hf
from r2rec_jax.model.llama import Llama, abstract_variables
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import new_folder

FETCH = "fetch it with `hf download deepseek-ai/DeepSeek-R1-Distill-Llama-8B --local-dir {folder}`"


def hf_name(path: tuple[str, ...], layer: int | None = None) -> str:
    """The tensor name of a parameter path, e.g. ('layers', 'mlp', 'up_proj', 'kernel'), layer 3."""
    if path == ("lm_head",):
        return "lm_head.weight"
    parts = [part for part in path if part not in ("kernel", "scale")]
    if layer is not None:
        parts.insert(1, str(layer))
    return "model." + ".".join(parts) + ".weight"


def _is_transposed(path: tuple[str, ...]) -> bool:
    return path[-1] in ("kernel", "lm_head")


def load_params(folder: str | Path, dtype, shardings=None) -> tuple[LlamaConfig, dict]:
    """Reads a folder's weights into this project's `params` tree.

    Args:
      folder: holds config.json and one or more *.safetensors.
      dtype: of every parameter after loading.
      shardings: tree of shardings like `params`; None leaves JAX's default placement.

    Raises:
      UserError: names every missing, extra or misshaped tensor in one line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no model folder {folder}: " + FETCH.format(folder=folder))
    config = load_config(folder)
    where, shape = {}, {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safetensors.safe_open(file, "np") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (the handle is no mapping)
                    where[name] = file
                    shape[name] = tuple(tensors.get_slice(name).get_shape())
        except (safetensors.SafetensorError, OSError) as fault:
            raise UserError(f"{file} is damaged ({fault}); " + FETCH.format(folder=folder)) from None
    if not where:
        raise UserError(f"no *.safetensors in {folder}; " + FETCH.format(folder=folder))

    abstract = traverse_util.flatten_dict(_abstract_params(config))
    wanted = {}
    for path, leaf in abstract.items():
        layers = range(leaf.shape[0]) if path[0] == "layers" else [None]
        one = leaf.shape[1:] if path[0] == "layers" else leaf.shape
        for layer in layers:
            wanted[hf_name(path, layer)] = one[::-1] if _is_transposed(path) else one
    if config.tie_word_embeddings:
        where.pop("lm_head.weight", None)
    # Everything is checked from the files' headers, before gigabytes are read.
    faults = {
        "missing": [name for name in wanted if name not in where],
        "unknown": [name for name in where if name not in wanted and "rotary_emb" not in name],
        "misshaped": [
            f"{name} {list(shape[name])} instead of {list(wanted[name])}"
            for name in wanted
            if name in where and shape[name] != wanted[name]
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_first(names)}" for kind, names in faults.items() if names)
        raise UserError(f"{folder} does not fit its config.json: {listed}; " + FETCH.format(folder=folder))

    def read(name):
        with safetensors.safe_open(where[name], "np") as tensors:
            return tensors.get_tensor(name)

    def assemble(path, leaf):
        layers = range(leaf.shape[0]) if path[0] == "layers" else [None]
        parts = []
        for layer in layers:
            tensor = read(hf_name(path, layer))
            parts.append((tensor.T if _is_transposed(path) else tensor).astype(dtype))
        return np.stack(parts) if path[0] == "layers" else parts[0]

    placed = {}
    flat_shardings = traverse_util.flatten_dict(shardings) if shardings is not None else {}
    for path, leaf in abstract.items():
        placed[path] = jax.device_put(assemble(path, leaf), flat_shardings.get(path))
    return config, traverse_util.unflatten_dict(placed)


def _first(names: list[str], shown: int = 5) -> str:
    """The first few names and how many follow, so that a wrong model still makes one line."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _abstract_params(config: LlamaConfig) -> dict:
    from flax.linen import meta

    return meta.unbox(abstract_variables(Llama(config)))["params"]


def save_params(
    folder: str | Path,
    config: LlamaConfig,
    params: dict,
    *,
    dtype=ml_dtypes.bfloat16,
    tokenizer=None,
    overwrite: bool = False,
    files: dict[str, str] | None = None,
) -> None:
    """Writes a folder that transformers loads: config, weights, tokenizer and any extra text `files`."""
    tensors = {}
    for path, leaf in traverse_util.flatten_dict(params).items():
        leaf = np.asarray(leaf)
        layers = enumerate(leaf) if path[0] == "layers" else [(None, leaf)]
        for layer, value in layers:
            value = value.T if _is_transposed(path) else value
            tensors[hf_name(path, layer)] = np.ascontiguousarray(value.astype(dtype))
    ids = {}
    with new_folder(folder, overwrite) as temporary:
        temporary = Path(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
            ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        raw = to_hf(config, torch_dtype=np.dtype(dtype).name, **ids)
        (temporary / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
        safetensors.numpy.save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        for name, text in (files or {}).items():
            (temporary / name).write_text(text)
