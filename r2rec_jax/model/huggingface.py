"""Loads and saves weights in Hugging Face folders with `config.json` and `model*.safetensors`."""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util
from flax.linen import meta

from r2rec_jax.model.architecture import LlamaConfig, load_config, to_hf
from r2rec_jax.model.casts import cast
from r2rec_jax.model.llama import Llama, abstract_variables
from r2rec_jax.model.shards import Stored, read_headers, read_slice, transpose_into, write_tensors
from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.paths import new_folder

FETCH = "fetch it with `hf download deepseek-ai/DeepSeek-R1-Distill-Llama-8B --local-dir {folder}`"
DTYPES = ("F32", "F16", "BF16")
ALIGNMENT = 64  # bytes; JAX's CPU backend uses such a NumPy array without copying it

Leaf = tuple[tuple[str, ...], jax.Array]


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


def abstract_params(config: LlamaConfig) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """Shape of every parameter by its path. Parameters under 'layers' are stacked, [L, ...]."""
    return traverse_util.flatten_dict(meta.unbox(abstract_variables(Llama(config)))["params"])


def load_params(folder: str | Path, dtype, shardings=None) -> tuple[LlamaConfig, dict]:
    """Reads a folder's weights into this project's `params` tree. Arguments and errors of `read_params`."""
    config, leaves = read_params(folder, dtype, shardings)
    return config, traverse_util.unflatten_dict(dict(leaves))


def read_params(folder: str | Path, dtype, shardings=None) -> tuple[LlamaConfig, Iterator[Leaf]]:
    """Reads a folder's weights one parameter at a time, directly to their shardings.

    A process reads only the slices of its own devices. It needs extra host memory for the mapped pages of one
    tensor, and on devices other than the CPU also for this process' slices of one parameter.

    Args:
      folder: contains config.json, one or more *.safetensors and optionally their index.
      dtype: dtype of every parameter after loading.
      shardings: tree of shardings like `params`. None means JAX's default placement.

    Returns:
      (architecture, iterator of (path, array) over all parameters).

    Raises:
      UserError: before any weight is read, one line with the first missing, unknown, misshaped or repeated
        tensors, wrong dtypes and absent files. During iteration, a number that is not finite or out of the
        range of `dtype`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no model folder {folder}: " + FETCH.format(folder=folder))
    config = load_config(folder)
    abstract = abstract_params(config)
    stored = _check(folder, config, abstract)
    placed = traverse_util.flatten_dict(shardings) if shardings is not None else {}
    return config, (
        (path, _read(path, leaf.shape, dtype, placed.get(path), stored)) for path, leaf in abstract.items()
    )


def _check(folder: Path, config: LlamaConfig, abstract: dict) -> dict[str, Stored]:
    """Checks from the files' headers that a folder contains exactly the tensors of `config`. Returns them."""
    advice = FETCH.format(folder=folder)
    headers = read_headers(folder, advice)
    stored, wanted = headers.tensors, {}
    for path, leaf in abstract.items():
        layers = range(leaf.shape[0]) if path[0] == "layers" else [None]
        shape = leaf.shape[1:] if path[0] == "layers" else leaf.shape
        for layer in layers:
            wanted[hf_name(path, layer)] = shape[::-1] if _is_transposed(path) else shape
    if config.tie_word_embeddings:
        stored.pop("lm_head.weight", None)
    faults = misfits(
        {name: tensor.shape for name, tensor in stored.items() if name in wanted or "rotary_emb" not in name},
        {name: shape for name, shape in wanted.items() if name not in headers.absent},
        {
            "absent files": sorted(set(headers.absent.values())),
            "wrong dtype": [
                f"{name} {stored[name].dtype} instead of one of {', '.join(DTYPES)}"
                for name in wanted
                if name in stored and stored[name].dtype not in DTYPES
            ],
            "in two files": headers.repeated,
        },
    )
    if faults:
        raise UserError(f"{folder} does not fit its config.json: {faults}; {advice}")
    return stored


def misfits(
    found: dict[str, tuple[int, ...]],
    wanted: dict[str, tuple[int, ...]],
    more: dict[str, list[str]] | None = None,
) -> str:
    """Describes how the tensors `found` (name -> shape) differ from `wanted`, with `more` faults by kind.

    Returns one line with the first few names and the number of others of each kind, '' without differences.
    """
    faults = {
        "missing": [name for name in wanted if name not in found],
        "unknown": [name for name in found if name not in wanted],
        "misshaped": [
            f"{name} {list(found[name])} instead of {list(shape)}"
            for name, shape in wanted.items()
            if name in found and found[name] != shape
        ],
        **(more or {}),
    }
    return "; ".join(f"{kind}: {_first(names)}" for kind, names in faults.items() if names)


def _first(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name, 120) for name in names[:most]) + more


def _read(path: tuple[str, ...], shape: tuple[int, ...], dtype, sharding, stored: dict) -> jax.Array:
    blocks = {}

    def block(index: tuple[slice, ...]) -> np.ndarray:
        """The block of the parameter on a device. Devices with the same block share one read."""
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        if bounds not in blocks:
            blocks[bounds] = _assemble(path, [slice(*bound) for bound in bounds], dtype, stored)
        return blocks[bounds]

    if sharding is None:
        array = jax.device_put(block((slice(None),) * len(shape)))
    else:
        array = jax.make_array_from_callback(shape, sharding, block)
    # Waits until the copy to the device is complete, so that the host memory is free for the next parameter.
    return array.block_until_ready()


def _assemble(path: tuple[str, ...], index: list[slice], dtype, stored: dict) -> np.ndarray:
    """A slice of a parameter, filled layer by layer from slices of its tensors."""
    stacked = path[0] == "layers"
    transposed = _is_transposed(path)
    out = _empty([part.stop - part.start for part in index], dtype)
    inner = tuple(index[1:] if stacked else index)
    for place, layer in enumerate(range(index[0].start, index[0].stop) if stacked else [None]):
        name = hf_name(path, layer)
        target = out[place] if stacked else out
        read_slice(target, name, stored[name], inner[::-1] if transposed else inner, transposed)
    return out


def _empty(shape: list[int], dtype) -> np.ndarray:
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


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
    """Writes a folder that transformers can load: config, weights, tokenizer and any extra text `files`."""
    ids = {}
    with new_folder(folder, overwrite) as temporary:
        temporary = Path(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
            ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        raw = to_hf(config, torch_dtype=np.dtype(dtype).name, **ids)
        (temporary / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
        write_tensors(temporary, hf_tensors(traverse_util.flatten_dict(params).items(), dtype))
        for name, text in (files or {}).items():
            (temporary / name).write_text(text)


def hf_tensors(leaves, dtype) -> Iterator[tuple[str, np.ndarray]]:
    """Converts (path, array) pairs of this project to (name, tensor) in Hugging Face's names and layout.

    Raises:
      UserError: a number is not finite, or out of the range of `dtype`.
    """
    for path, leaf in leaves:
        yield from _tensors_of(path, np.asarray(leaf), dtype)
        del leaf  # frees its memory before the next one is made


def _tensors_of(path: tuple[str, ...], leaf: np.ndarray, dtype) -> Iterator[tuple[str, np.ndarray]]:
    for layer, value in enumerate(leaf) if path[0] == "layers" else [(None, leaf)]:
        value = np.ascontiguousarray(cast(value, dtype, hf_name(path, layer)))
        if _is_transposed(path):
            tensor = np.empty(value.shape[::-1], dtype)
            transpose_into(tensor, value)
            value = tensor
        yield hf_name(path, layer), value
