"""What a run has left, read so that two runs can be compared bit for bit."""

import dataclasses
import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from r2rec_jax.runtime.build_stamp import RECORD

# Seconds, speeds and memory: they differ between any two runs.
MEASURED = re.compile(r"time/.*|memory/.*|.*_per_s|.*mfu.*|wall_s")
ARRAYS = "_METADATA"  # in a folder of arrays as orbax writes it
# When, where and by whom it was written: two of orbax's, the lock of a workdir, and what a folder was made
# from, which has the sizes of the others.
STAMPS = ("_CHECKPOINT_METADATA", "commit_success.txt", ".lock", RECORD)


@dataclasses.dataclass(frozen=True)
class Outputs:
    """`of`: contents by path, that of a folder "a folder"; `left_out`: names of fields not in them."""

    of: dict[str, object]
    left_out: set[str]


def read(folder: Path) -> Outputs:
    """Everything below `folder`: JSON parsed, without measured fields; checkpoints as arrays; else bytes."""
    outputs = Outputs({}, set())
    for path in _walk(folder):
        outputs.of[str(path.relative_to(folder))] = _content(path, outputs.left_out)
    return outputs


def difference(whole: Outputs, other: Outputs) -> str:
    """Where `other` first differs from `whole`, in a line; '' where they are equal."""
    for name in sorted(whole.of.keys() | other.of.keys()):
        if name not in other.of:
            return f"{name} is missing"
        if name not in whole.of:
            return f"{name} should not be there"
        if found := _first(whole.of[name], other.of[name]):
            return f"{name}{found}"
    return ""


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not _holds_arrays(path):
            yield from _walk(path)


def _holds_arrays(path: Path) -> bool:
    return (path / ARRAYS).is_file()


def _content(path: Path, left_out: set[str]):
    if path.is_dir():
        return _arrays(path) if _holds_arrays(path) else "a folder"
    if path.name in STAMPS:
        left_out.add(path.name)
        return "a stamp"
    data = path.read_bytes()
    try:
        if path.suffix == ".jsonl":
            *lines, rest = data.decode().split("\n")
            if rest:
                raise ValueError("its last line is cut off")
            return [_without_measured(json.loads(line), left_out) for line in lines]
        if path.suffix == ".json":
            return _without_measured(json.loads(data), left_out)
    except ValueError as error:
        return f"no JSON: {error}"
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"


def _arrays(folder: Path) -> dict[str, str]:
    with ocp.PyTreeCheckpointer() as reader, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sharding info not provided")  # as they were is what is wanted
        tree = reader.restore(folder.absolute())
    return {
        jax.tree_util.keystr(path): _described(np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _described(array: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype}{list(array.shape)}, sha256 {digest}"


def _without_measured(tree, left_out: set[str]):
    if isinstance(tree, list):
        return [_without_measured(one, left_out) for one in tree]
    if not isinstance(tree, dict):
        return tree
    measured = {name for name in tree if MEASURED.fullmatch(name)}
    left_out |= measured
    return {name: _without_measured(one, left_out) for name, one in tree.items() if name not in measured}


def _first(whole, other) -> str:
    """ ": what is where" of the first difference inside two contents."""
    if isinstance(whole, dict) and isinstance(other, dict):
        for name in (*whole, *(name for name in other if name not in whole)):
            if name not in other or name not in whole:
                return f" {name}: {'missing' if name not in other else 'should not be there'}"
            if found := _first(whole[name], other[name]):
                return f" {name}{found}"
        return ""
    if isinstance(whole, list) and isinstance(other, list):
        for number, (one, its) in enumerate(zip(whole, other, strict=False), start=1):
            if found := _first(one, its):
                return f" [{number}]{found}"
        return "" if len(whole) == len(other) else f": {len(other)} entries instead of {len(whole)}"
    # By their JSON: 1 is not 1.0 or true there, and nan is itself.
    text, its = json.dumps(whole), json.dumps(other)
    return "" if text == its else f": {its[:100]} instead of {text[:100]}"
