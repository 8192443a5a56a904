"""Weights in and out of Hugging Face folders: `config.json` beside `model*.safetensors`."""

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
ALIGNMENT = 64  # bytes; JAX's CPU backend takes such a NumPy array as it is, others it copies

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
    """Shape of every parameter by its path; those under 'layers' are stacked, [L, ...]."""
    return traverse_util.flatten_dict(meta.unbox(abstract_variables(Llama(config)))["params"])


def load_params(folder: str | Path, dtype, shardings=None) -> tuple[LlamaConfig, dict]:
    """Reads a folder's weights into this project's `params` tree; arguments and errors of `read_params`."""
    config, leaves = read_params(folder, dtype, shardings)
    return config, traverse_util.unflatten_dict(dict(leaves))


def read_params(folder: str | Path, dtype, shardings=None) -> tuple[LlamaConfig, Iterator[Leaf]]:
    """Reads a folder's weights parameter by parameter, each straight into its place.

    A process reads the slices of its own devices only. Host memory beyond the arrays themselves: on CPU
    the mapped pages of one tensor, on other devices one parameter's slices of this process as well.

    Args:
      folder: holds config.json, one or more *.safetensors and, perhaps, their index.
      dtype: of every parameter after loading.
      shardings: tree of shardings like `params`; None leaves JAX's default placement.

    Returns:
      (architecture, iterator of (path, array) over all parameters).

    Raises:
      UserError: at once, before any weight is read: one line that names every missing, unknown,
        misshaped or repeated tensor, every wrong dtype and absent file; a number that is not finite, or not
        in `dtype`, when its parameter's turn comes.
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
    """The folder's tensors, all that `config` asks for and nothing else, by the files' headers."""
    advice = FETCH.format(folder=folder)
    headers = read_headers(folder, advice)
    stored, wanted = headers.tensors, {}
    for path, leaf in abstract.items():
        layers = range(leaf.shape[0]) if path[0] == "layers" else [None]
        one = leaf.shape[1:] if path[0] == "layers" else leaf.shape
        for layer in layers:
            wanted[hf_name(path, layer)] = one[::-1] if _is_transposed(path) else one
    if config.tie_word_embeddings:
        stored.pop("lm_head.weight", None)
    faults = misfits(
        {name: found.shape for name, found in stored.items() if name in wanted or "rotary_emb" not in name},
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
    """How tensors by name and shape differ from those wanted, and `more` faults by kind; '' for not at all.

    One line however wrong the model is: the first few names of each kind, and how many follow.
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
        """The part of the parameter that a device holds; read once for all devices that hold it."""
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        if bounds not in blocks:
            blocks[bounds] = _assemble(path, [slice(*bound) for bound in bounds], dtype, stored)
        return blocks[bounds]

    if sharding is None:
        array = jax.device_put(block((slice(None),) * len(shape)))
    else:
        array = jax.make_array_from_callback(shape, sharding, block)
    # The next parameter's memory is asked for only when this one's is on the device and free again.
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
    """Writes a folder that transformers loads: config, weights, tokenizer and any extra text `files`."""
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
    """(name, tensor) in Hugging Face's names and layout, for (path, array) of this project's.

    Raises UserError for a number that is not finite, or not in `dtype`.
    """
    for path, leaf in leaves:
        yield from _tensors_of(path, np.asarray(leaf), dtype)
        del leaf  # before the next one is made


def _tensors_of(path: tuple[str, ...], leaf: np.ndarray, dtype) -> Iterator[tuple[str, np.ndarray]]:
    for layer, value in enumerate(leaf) if path[0] == "layers" else [(None, leaf)]:
        value = np.ascontiguousarray(cast(value, dtype, hf_name(path, layer)))
        if _is_transposed(path):
            tensor = np.empty(value.shape[::-1], dtype)
            transpose_into(tensor, value)
            value = tensor
        yield hf_name(path, layer), value
