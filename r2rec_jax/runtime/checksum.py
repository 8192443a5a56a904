"""What a checkpoint says of itself, so that another program, model or bit in it is noticed."""

import json
import zlib
from typing import Any

import jax
import numpy as np

from r2rec_jax.runtime.distributed import fetch

FORMAT = 1  # of a checkpoint's folder; it changes with what is in it or how


def describe(state: Any, data: dict) -> dict:
    """Format, leaves, checksums of state and data, and `own`, that of all this."""
    described = {"format": FORMAT, "leaves": leaves(state)}
    described |= {"state": of_arrays(state), "data": of_json(data)}
    return described | {"own": of_json(described)}


def leaves(state: Any) -> dict[str, str]:
    """{"trainable.lora.a": "float32[2, 3]"} of arrays or their shapes."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def of_json(data: dict) -> int:
    """CRC-32."""
    return zlib.crc32(json.dumps(data).encode())


def of_arrays(state: Any) -> int:
    """CRC-32 of every leaf's values, whatever mesh they are on."""
    checksum = 0
    for leaf in jax.tree.leaves(state):
        checksum = zlib.crc32(np.asarray(fetch(leaf)).reshape(-1).view(np.uint8), checksum)
    return checksum
