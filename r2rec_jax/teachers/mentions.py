"""Which items, people and ratings a statement in free text mentions."""

import re
from collections.abc import Iterable

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.wording import Wording

_YEAR = re.compile(r"\s\(\d{4}\)$")
_ARTICLE = re.compile(r"(.+), (The|A|An|Le|La|Les|Der|Die|Das|Il|El)\b(.*)", re.DOTALL)
_SHORTEST = 4  # letters of a lone word that counts as a title without its year: not "It" or "Go"

_LIST = re.compile(r"\[[^\[\]]*\]")
_DIGITS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_SPELLED = "|".join(_DIGITS)
_BEFORE = r"\b(?:(?:rat(?:ed|es|ing)|gave|gives?|scored?)\s+(?:(?:it|this|that|of|is|was|an?)\s+){0,3}|a\s)"
_WORDS = re.compile(rf"({_BEFORE})({_SPELLED})\b|\b({_SPELLED})(?=[ -](?:stars?|out of)\b)", re.IGNORECASE)
# What holds a number and is no rating: the scale, counts of steps, distances between ratings.
_NO_RATING = re.compile(
    r"\bout of (?:5|five)\b|(?<=\d)\s?/\s?5\b|\b1\s?(?:-|–|to)\s?5\b|\b1 \(worst\) to 5 \(best\)"
    r"|\b(?:hops?|steps?|chains?|statements?|lines?)\s+#?\d+|\bby (?:just |only )?\d(?:\.\d)?\b"
    r"|\b\d(?:\.\d)?[ -](?:points?|notch(?:es)?|steps?|(?:stars? )?(?:lower|higher|apart|above|below))\b"
    r"|\b\d(?:\.\d)?[ -](?:stars? )?(?:less|more)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.,/#-])(\d(?:\.\d+)?)(?![\w/]|[-.,]\d)")


class Names:
    """The names under which items may be mentioned: as shown, without the year, with the article first.

    A name of several items means all of them; a longer name hides the shorter ones inside it.
    """

    def __init__(self, items: list[int], catalog: Catalog, wording: Wording):
        self._items: dict[str, set[int]] = {}
        exact, loose = set(), set()
        for item in items:
            shown = wording.title(catalog, item)
            bare = _YEAR.sub("", shown) if int(catalog.year[item]) else shown
            for name in {shown, bare, _article_first(shown), _article_first(bare)}:
                one_word = len(name.split()) == 1
                if one_word and name != shown and len(name) < _SHORTEST:
                    continue
                # A lone word may be an ordinary one, which case alone tells from the title.
                (exact if one_word else loose).add(name)
                self._items.setdefault(name if one_word else name.casefold(), set()).add(item)
        names = sorted(exact | loose, key=len, reverse=True)
        parts = (re.escape(n) if n in exact else f"(?i:{re.escape(n)})" for n in names)
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)") if names else None

    def read(self, text: str) -> tuple[list[set[int]], str]:
        """(what each mention may mean, the text with a blank in place of each mention)."""
        if self._pattern is None:
            return [], text
        found = []

        def blank(match: re.Match) -> str:
            found.append(self._items.get(match[0]) or self._items[match[0].casefold()])
            return " "

        return found, self._pattern.sub(blank, text)


class Words:
    """Whole words and phrases, as they are written: to find in a text or to take out of it."""

    def __init__(self, words: Iterable[str]):
        longest_first = sorted(set(words), key=len, reverse=True)
        either = "|".join(map(re.escape, longest_first)) or "(?!)"  # which matches nothing
        self._pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)")

    def found(self, text: str) -> set[str]:
        return set(self._pattern.findall(text))

    def blank(self, text: str) -> str:
        return self._pattern.sub(" ", text)


def ratings(text: str) -> list[float]:
    """The numbers that read as ratings, digits or words, in order, outside brackets (genres)."""
    text = _WORDS.sub(lambda m: (m[1] or "") + _DIGITS[(m[2] or m[3]).casefold()], _LIST.sub(" ", text))
    return [float(number) for number in _NUMBER.findall(_NO_RATING.sub(" ", text))]


def _article_first(title: str) -> str:
    match = _ARTICLE.fullmatch(title)
    return f"{match[2]} {match[1]}{match[3]}" if match else title
