"""Which items of a catalogue would have one name, and how they are told apart."""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

VERSION = " (version {})"  # after a title that several items have


def versions(titles: Iterable[str], years: np.ndarray) -> np.ndarray:
    """int32 [n]: 0 for an item whose title and year no other item has; else which of these it is, from 1.

    `years` are 0 where a title is not followed by one. No number makes a name that another item has already:
    of two "Heat" beside a "Heat (version 1)" the first is number 2.
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
        while _holds(taken, _name(titles[item] + VERSION.format(number), years[item])):
            number += 1
        version[item] = last[key[item]] = number
    return version


def _name(title: str, year: int) -> str:
    return f"{title} ({year})" if year else title


def _holds(sorted_keys: np.ndarray, name: str) -> bool:
    place = np.searchsorted(sorted_keys, np.uint64(_hash(name)))
    return place < len(sorted_keys) and sorted_keys[place] == _hash(name)


def _hash(text: str) -> int:
    """64 bits in place of the text: a catalogue of millions has to fit the memory."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
