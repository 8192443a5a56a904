"""Checksums and leaf shapes of a checkpoint, to detect damage, another model or another format."""

import json
import zlib
from typing import Any

import jax
import numpy as np

from r2rec_jax.runtime.distributed import fetch

FORMAT = 1  # of a checkpoint's folder; raised when its content or layout changes


def describe(state: Any, data: dict) -> dict:
    """Format, leaves, checksums of state and data, and "own", the checksum of this description."""
    described = {"format": FORMAT, "leaves": leaves(state)}
    described |= {"state": of_arrays(state), "data": of_json(data)}
    return described | {"own": of_json(described)}


def leaves(state: Any) -> dict[str, str]:
    """Path -> dtype and shape of arrays or ShapeDtypeStructs, e.g. "trainable.lora.a": "float32[2, 3]"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def of_json(data: dict) -> int:
    """CRC-32 of the JSON text."""
    return zlib.crc32(json.dumps(data).encode())


def of_arrays(state: Any) -> int:
    """CRC-32 of the values of all leaves; it does not depend on the sharding."""
    checksum = 0
    for leaf in jax.tree.leaves(state):
        checksum = zlib.crc32(np.asarray(fetch(leaf)).reshape(-1).view(np.uint8), checksum)
    return checksum
