"""Reads headers and tensor slices of a model folder's safetensors files, and writes sharded files."""

import collections
import dataclasses
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from r2rec_jax.model.casts import cast
from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.untrusted import parse_json

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 1 << 30
# Small enough to be transposed within the processor's cache, large enough to limit the number of calls.
CHUNK_BYTES = 4 << 20
TILE = 128
# NumPy releases the GIL while it copies. More threads than this do not help.
THREADS = min(4, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file. `dtype` is safetensors' name, e.g. BF16."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Headers:
    """tensors: all tensors of a folder by name. absent: tensor name -> missing file of the index. repeated:
    tensors that are in more than one file, as text.
    """

    tensors: dict[str, Stored]
    absent: dict[str, str]
    repeated: list[str]


def read_headers(folder: Path, advice: str) -> Headers:
    """Reads the headers of the files in the index, or of all *.safetensors if there is no index.

    Raises:
      UserError: there is no file, or a file or the index is damaged. The message ends with `advice`.
    """
    index = _read_index(folder, advice)
    files = sorted(set(index.values())) or sorted(path.name for path in folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"no *.safetensors in {folder}; {advice}")
    tensors, homes = {}, collections.defaultdict(list)
    for file in (folder / name for name in files if (folder / name).exists()):
        try:
            with safetensors.safe_open(file, "np") as handle:
                for name in handle.keys():  # noqa: SIM118 (the handle is not a mapping)
                    tensor = handle.get_slice(name)
                    tensors[name] = Stored(file, tuple(tensor.get_shape()), tensor.get_dtype())
                    homes[name].append(file.name)
        except (safetensors.SafetensorError, OSError) as fault:
            raise UserError(f"{file} is damaged ({shown(fault, 300)}); {advice}") from None
    absent = {
        name: file for name, file in index.items() if name not in tensors and not (folder / file).exists()
    }
    repeated = [f"{name} ({', '.join(names)})" for name, names in homes.items() if len(names) > 1]
    return Headers(tensors, absent, repeated)


def _read_index(folder: Path, advice: str) -> dict[str, str]:
    """Reads the index: tensor name -> file name. {} if there is no index."""
    path = folder / INDEX
    if not path.exists():
        return {}
    try:
        index = parse_json(path.read_bytes())["weight_map"]
        # A file name with a folder could refer to any file of the machine.
        plain = all(Path(file).name == file and file.endswith(".safetensors") for file in index.values())
        plain &= all(len(file.encode()) < 256 for file in index.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        plain = False
    if not plain:
        raise UserError(f"{path} is damaged: it does not map tensors to files in its folder; {advice}")
    return index


def read_slice(
    out: np.ndarray, name: str, stored: Stored, index: tuple[slice, ...], transposed: bool
) -> None:
    """Fills `out` with tensor[index], optionally transposed, in `out`'s dtype. The tensor is 1-D or 2-D.

    It needs a few MB besides `out`, and the mapped pages of the slice while it runs.

    Raises:
      UserError: a number is not finite, or out of the range of the dtype.
    """
    # The file is opened for every tensor, because pages of a mapped file are resident until it is closed.
    # Without a map (backend "pread"), safetensors 0.8 reads the whole tensor for any slice.
    with safetensors.safe_open(stored.file, "np") as handle:
        tensor = handle.get_slice(name)
        rows, columns = index[0], index[1:]
        width = np.prod([column.stop - column.start for column in columns], dtype=int)
        step = max(TILE, CHUNK_BYTES // (int(width) * 4))

        def read(start: int) -> None:
            stop = min(start + step, rows.stop)
            piece = cast(tensor[(slice(start, stop), *columns)], out.dtype, f"{stored.file}: {name}")
            here = slice(start - rows.start, stop - rows.start)
            if transposed:
                transpose_into(out[:, here], piece)
            else:
                out[here] = piece

        starts = range(rows.start, rows.stop, step)
        if len(starts) == 1:
            read(rows.start)
            return
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(read, starts))  # consumed so that exceptions are raised


def transpose_into(out: np.ndarray, matrix: np.ndarray) -> None:
    """out[...] = matrix.T in tiles, five times as fast as plain NumPy for matrices larger than the cache."""
    bits = np.dtype(f"u{matrix.dtype.itemsize}")  # NumPy copies bfloat16 slower than integers
    out, matrix = out.view(bits), matrix.view(bits)
    for i in range(0, matrix.shape[0], TILE):
        for j in range(0, matrix.shape[1], TILE):
            out[j : j + TILE, i : i + TILE] = matrix[i : i + TILE, j : j + TILE].T


def write_tensors(
    folder: Path, tensors: Iterable[tuple[str, np.ndarray]], shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes model.safetensors, or several files of at most `shard_bytes` (or one tensor) and their index.

    `tensors` is consumed lazily, so that at most one file's tensors are in memory.
    """
    names: list[list[str]] = []
    pending: dict[str, np.ndarray] = {}
    total = size = 0

    def flush():
        part = folder / f"{len(names)}.part"
        safetensors.numpy.save_file(pending, part, metadata={"format": "pt"})
        part.chmod(0o644)  # safetensors 0.8 makes files readable for the owner only
        names.append(list(pending))
        pending.clear()

    for name, tensor in tensors:
        if pending and size + tensor.nbytes > shard_bytes:
            flush()
            size = 0
        pending[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(names) == 1:
        (folder / "0.part").rename(folder / "model.safetensors")
        return
    weight_map = {}
    for part, in_file in enumerate(names):
        file = f"model-{part + 1:05d}-of-{len(names):05d}.safetensors"
        (folder / f"{part}.part").rename(folder / file)
        weight_map |= dict.fromkeys(in_file, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
