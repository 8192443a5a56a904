"""Parses small text files with a fixed line format, read into memory. Errors contain the file and line."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from r2rec_jax.data.cleaning import Rules
from r2rec_jax.runtime.errors import UserError


def read_bytes(path: Path, fetch: str) -> bytes:
    """The file's bytes. Raises UserError with the download hint `fetch` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): {fetch}; unpack it so that {path} exists"
        ) from error


def parse_ratings(path: Path, raw: bytes, separator: bytes, form: str) -> np.ndarray:
    """Parses lines of user, item, rating 1..5 and timestamp, in the order of the file: int64[N, 4]."""
    # One match over the whole file ends at the first bad line. Possessive quantifiers (++) do not
    # backtrack, so a million lines need little memory and time. The digit limits fit int64.
    fields = re.escape(separator).join([rb"\d{1,9}+", rb"\d{1,9}+", rb"[1-5]", rb"\d{1,18}+"])
    good = re.match(rb"(?:" + fields + rb"\r?\n)*+", raw).end()
    if good < len(raw):
        if b"\n" not in raw[good:]:
            last = raw.count(b"\n") + 1
            raise UserError(f"{path}:{last}: the file ends within a line, so it is truncated: fetch it again")
        raise bad_line(path, raw.count(b"\n", 0, good) + 1, form)
    if not raw:
        raise UserError(f"{path} is empty: expected lines of {form}; fetch it again")
    return np.fromstring(raw.replace(separator, b" "), np.int64, sep=" ").reshape(-1, 4)


def text_lines(raw: bytes, rules: Rules) -> Iterator[tuple[int, str]]:
    """Yields (line number, text) of a latin-1 file. Lines of valid UTF-8 are decoded as such and counted."""
    # Not splitlines(), which also splits at other characters that latin-1 text may contain.
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        try:
            text = line.decode("utf-8")
            rules.count("titles_read_as_utf8", not line.isascii())
        except UnicodeDecodeError:
            text = line.decode("latin-1")
        yield number, text


def distinct(path: Path, ids: list[int]) -> np.ndarray:
    """The ids as int64. Raises UserError for an id that is listed twice."""
    seen = {}
    for number, raw_id in enumerate(ids, 1):
        if raw_id in seen:
            raise UserError(f"{path}:{number}: id {raw_id} is already on line {seen[raw_id]}: remove one")
        seen[raw_id] = number
    return np.array(ids, np.int64)


def positions(path: Path, raw_ids: np.ndarray, listed: np.ndarray, what: str, listed_in: str) -> np.ndarray:
    """Indices of `raw_ids` in `listed`: int64[N]. Raises UserError for an id that is not in `listed`."""
    order = np.argsort(listed)
    place = order[np.minimum(np.searchsorted(listed, raw_ids, sorter=order), len(listed) - 1)]
    unknown = np.flatnonzero(listed[place] != raw_ids)
    if len(unknown):
        row = int(unknown[0])
        raise UserError(
            f"{path}:{row + 1}: {what} {raw_ids[row]} is not in {listed_in}: use the files of one release"
        )
    return place


def bad_line(path: Path, number: int, form: str) -> UserError:
    return UserError(f"{path}:{number}: expected {form}; correct the line or fetch the file again")
