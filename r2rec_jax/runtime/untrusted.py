"""Reads untrusted JSON and arrays, and writes untrusted values as JSON lines."""

import json
from pathlib import Path

import numpy as np

DEEPEST = 100  # maximum levels of nesting; Python recurses to about a thousand


def parse_json(data: str | bytes) -> object:
    """Parses JSON. Raises ValueError if it is invalid or nests deeper than DEEPEST."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError(f"it nests deeper than {DEEPEST} levels") from None
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = [
            node.values() if isinstance(node, dict) else node
            for node in level
            if isinstance(node, dict | list)
        ]
        level = [child for children in inner for child in children]
        if not level:
            return value
    raise ValueError(f"it nests deeper than {DEEPEST} levels")


def json_line(value: object) -> bytes:
    """`value` as a line of JSON in UTF-8, with unprintable characters escaped.

    A title or completion in the file therefore cannot affect a terminal or split a line.
    Raises ValueError for a number that is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not text.isprintable():  # they occur only inside strings, where an escape is equivalent
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    return text.encode() + b"\n"


def open_array(path: str | Path, dtype: type, ndim: int) -> np.ndarray:
    """Opens an .npy file as a read-only memory map, so that a forged header cannot allocate memory.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: the file is damaged, or has another dtype or number of dimensions.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy parses the header as Python, which raises many types
        raise ValueError(f"{Path(path).name} is no array: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != ndim:
        raise ValueError(f"{Path(path).name} is no array of {np.dtype(dtype)} with {ndim} dimensions")
    return array
