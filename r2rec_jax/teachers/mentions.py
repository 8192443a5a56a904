"""Finds the items, people and ratings that a statement in free text mentions."""

import re
from collections.abc import Iterable

import numpy as np

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.data.rating_scale import COUNTS, NONE, Scale
from r2rec_jax.prompts.wording import Wording

_YEAR = re.compile(r"\s\(\d{4}\)$")
_VERSION = re.compile(r" \(version \d+\)")  # distinguishes items with the same name
_ARTICLE = re.compile(r"(.+), (The|A|An|Le|La|Les|Der|Die|Das|Il|El)\b(.*)", re.DOTALL)
# Fewest letters of a one-word title that is recognised without its year; excludes "It" and "Go".
_SHORTEST = 4

_LIST = re.compile(r"\[[^\[\]]*\]")
_SPELLED = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_TIMES = re.compile(r"\b(once|twice)\b|(?<![\w.,/#-])(\d+) times?\b", re.IGNORECASE)


class Names:
    """Finds titles in a text.

    An item matches under its title as shown, without year or version, and with the article moved to the
    front. A name that several items share refers to all of them. The longest matching name wins.
    """

    def __init__(self, items: list[int], catalog: Catalog, wording: Wording):
        self._items: dict[str, set[int]] = {}
        exact, loose = set(), set()
        for item in items:
            shown = wording.title(catalog, item)
            bare = _YEAR.sub("", shown) if int(catalog.year[item]) else shown
            variants = {shown, bare, _VERSION.sub("", shown), _VERSION.sub("", bare)}
            for name in variants | set(map(_article_first, variants)):
                one_word = len(name.split()) == 1
                if one_word and name != shown and len(name) < _SHORTEST:
                    continue
                # A one-word title may be an ordinary word, so it must match in case too.
                (exact if one_word else loose).add(name)
                self._items.setdefault(name if one_word else name.casefold(), set()).add(item)
        names = sorted(exact | loose, key=len, reverse=True)
        parts = (re.escape(n) if n in exact else f"(?i:{re.escape(n)})" for n in names)
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)") if names else None

    def read(self, text: str) -> tuple[list[set[int]], str]:
        """(for each mention the items it may refer to, the text with a blank in place of each mention)."""
        if self._pattern is None:
            return [], text
        mentions = []

        def blank(match: re.Match) -> str:
            mentions.append(self._items.get(match[0]) or self._items[match[0].casefold()])
            return " "

        return mentions, self._pattern.sub(blank, text)


class Words:
    """Finds or blanks whole words and phrases in a text; matching is case-sensitive."""

    def __init__(self, words: Iterable[str]):
        longest_first = sorted(set(words), key=len, reverse=True)
        alternatives = "|".join(map(re.escape, longest_first)) or "(?!)"  # "(?!)" never matches
        self._pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")

    def find(self, text: str) -> set[str]:
        return set(self._pattern.findall(text))

    def blank(self, text: str) -> str:
        return self._pattern.sub(" ", text)


class Ratings:
    """Finds the ratings in a statement, in digits or in words, in order of appearance.

    These numbers are not ratings: those in square brackets (genres), those of the scale itself ("out of 5"),
    of steps ("statement 2") and of distances ("2 points lower"). On a scale of counts the ratings are
    "once", "twice" and "12 times".
    """

    def __init__(self, scale: Scale):
        self.kind = scale.kind
        most, least = re.escape(f"{scale.most:g}"), re.escape(f"{scale.least:g}")
        words = _SPELLED[: int(scale.most)]
        self._digits = {word: str(k) for k, word in enumerate(words, start=1)}
        spelled = "|".join(words) or "(?!)"
        ends = f"{most}|{words[-1]}" if len(words) == scale.most else most
        whole = rf"\d{{1,{len(str(int(scale.most)))}}}"
        number = rf"{whole}(?:\.\d)?"
        before = (
            r"\b(?:(?:rat(?:ed|es|ing)|gave|gives?|scored?)\s+(?:(?:it|this|that|of|is|was|an?)\s+){0,3}|a\s)"
        )
        self._words = re.compile(
            rf"({before})({spelled})\b|\b({spelled})(?=[ -](?:stars?|out of)\b)", re.IGNORECASE
        )
        self._no_rating = re.compile(
            rf"\bout of (?:{ends})\b|(?<=\d)\s?/\s?{most}\b|\b{least}\s?(?:-|–|to)\s?{most}\b"
            rf"|\b{least} \(worst\) to {most} \(best\)"
            r"|\b(?:hops?|steps?|chains?|statements?|lines?)\s+#?\d+"
            rf"|\bby (?:just |only )?{number}\b"
            rf"|\b{number}[ -](?:points?|notch(?:es)?|steps?)\b"
            rf"|\b{number}[ -](?:stars? )?(?:lower|higher|apart|above|below)\b"
            rf"|\b{number}[ -](?:stars? )?(?:less|more)\b",
            re.IGNORECASE,
        )
        self._number = re.compile(rf"(?<![\w.,/#-])({whole}(?:\.\d+)?)(?![\w/]|[-.,]\d)")

    def __call__(self, text: str) -> list[float]:
        text = _LIST.sub(" ", text)
        if self.kind == NONE:
            return []
        if self.kind == COUNTS:
            matches = _TIMES.findall(text)
            return [float(number or {"once": 1, "twice": 2}[word.casefold()]) for word, number in matches]
        text = self._words.sub(lambda m: (m[1] or "") + self._digits[(m[2] or m[3]).casefold()], text)
        return [as_float32(number) for number in self._number.findall(self._no_rating.sub(" ", text))]


def as_float32(number: str) -> float:
    """A number in a text, rounded to float32 as the rating log stores it; "3.7" differs as a double."""
    return float(np.float32(number))


def _article_first(title: str) -> str:
    match = _ARTICLE.fullmatch(title)
    return f"{match[2]} {match[1]}{match[3]}" if match else title
