"""Assigns version numbers to items with equal title and year, so that prompts can distinguish them."""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

VERSION = " (version {})"  # appended to a title that several items share


def versions(titles: Iterable[str], years: np.ndarray) -> np.ndarray:
    """Version numbers int32[n]: 0 for a unique title and year, else 1, 2, ... among the items with both.

    years: int[n], 0 for an item without a year. A number is skipped if another item already has the resulting
    name: with a third item titled "Heat (version 1)", two items "Heat" get the numbers 2 and 3.
    """
    titles = titles if isinstance(titles, list) else list(titles)
    key = np.fromiter(
        (_hash(_name(*pair)) for pair in zip(titles, years, strict=True)), np.uint64, len(years)
    )
    order = np.argsort(key, kind="stable")
    taken, repeats = key[order], np.zeros(len(key), bool)
    same = taken[1:] == taken[:-1]
    repeats[1:] |= same
    repeats[:-1] |= same
    version, last = np.zeros(len(key), np.int32), {}
    for item in order[repeats].tolist():
        number = last.get(key[item], 0) + 1
        while _contains(taken, _name(titles[item] + VERSION.format(number), years[item])):
            number += 1
        version[item] = last[key[item]] = number
    return version


def _name(title: str, year: int) -> str:
    return f"{title} ({year})" if year else title


def _contains(sorted_keys: np.ndarray, name: str) -> bool:
    place = np.searchsorted(sorted_keys, np.uint64(_hash(name)))
    return place < len(sorted_keys) and sorted_keys[place] == _hash(name)


def _hash(text: str) -> int:
    """A 64-bit hash, so that the names of millions of items fit in memory."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
