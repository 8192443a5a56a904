"""JSON and arrays from outside, and lines of JSON with what came from there."""

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


def json_line(value: object) -> bytes:
    """`value` as a line of JSON in UTF-8, the characters that do not print escaped.

    So a title or a completion has no effect on a terminal and splits no line, whoever prints the file.
    Raises ValueError for a number that is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not text.isprintable():  # such characters stand in strings alone, where an escape means the same
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    return text.encode() + b"\n"


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
