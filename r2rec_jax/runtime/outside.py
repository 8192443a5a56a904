"""JSON and arrays from outside: a value that the rest of the code can walk, or a ValueError."""

import json
from pathlib import Path

import numpy as np

DEEPEST = 100  # levels of nesting: nothing here has ten, and Python walks no more than about a thousand


def parse_json(data: str | bytes) -> object:
    """Raises ValueError for what is no JSON, or nests deeper than DEEPEST."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError(f"it nests deeper than {DEEPEST} levels") from None
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        ]
        level = [child for children in inner for child in children]
        if not level:
            return value
    raise ValueError(f"it nests deeper than {DEEPEST} levels")


def open_array(path: str | Path, dtype: type, ndim: int) -> np.ndarray:
    """An .npy file through a read-only map, which takes no memory whatever its header says.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is damaged, or of another dtype or number of dimensions.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # a header is parsed as Python: what that lets through has no common class
        raise ValueError(f"{Path(path).name} is no array: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != ndim:
        raise ValueError(f"{Path(path).name} is no array of {np.dtype(dtype)} with {ndim} dimensions")
    return array
