"""Turns untrusted text into one line of visible text without markup or answer separators."""

import functools
import re
import unicodedata

MARKUP = re.compile(r"< ?/? ?think ?>|<[|｜][^<>]{0,40}[|｜]>", re.IGNORECASE)
_LONGEST = 44  # longest match of MARKUP, characters
# Maximum combining marks in a row, as in Unicode's stream-safe text; normalising a million takes minutes.
_MARKS = 30
# Control characters, invisible formats (direction marks, zero-width, tags), halves of surrogate pairs.
_UNSEEN = {"Cc", "Cf", "Cs"}


def plain(text: str) -> str:
    """Untrusted text (a title, a name) as one line of visible text without markup; idempotent.

    Neither the result nor any Unicode normalisation of it contains a marker that MARKUP matches.
    """
    kept = []
    for character in text:
        if character.isspace() or unicodedata.category(character) in _UNSEEN:
            if kept and kept[-1] != " ":
                kept.append(" ")
            continue
        if unicodedata.combining(character) and _is_full(kept):
            continue
        kept.append(character)
        # The check at each '>' also finds markers whose halves a removal has joined.
        if character == ">":
            tail = "".join(kept[-_LONGEST:])
            tail = tail[tail.rfind("<") :]
            if MARKUP.fullmatch(tail):
                del kept[-len(tail) :]
    text = "".join(kept).rstrip()
    decomposed = unicodedata.normalize("NFKD", text)
    return plain(decomposed) if MARKUP.search(decomposed) else text


def _is_full(kept: list[str]) -> bool:
    """Whether the text ends in the maximum number of combining marks."""
    return len(kept) >= _MARKS and all(map(unicodedata.combining, kept[-_MARKS:]))


@functools.lru_cache(maxsize=1 << 16)
def clean(text: str) -> str:
    """`plain` text without '>', the separator between the items of an answer."""
    return " ".join(plain(text).replace(">", " ").split())
