"""Parses rankings and statements from a completion. Strict: the parser guesses and completes nothing."""

import dataclasses
import re
import unicodedata

ORDER = "Order:"
RATING = "Rating:"

_NUMBER = re.compile(r"[\[(]?([0-9]{1,6})[\])]?\.?")
_GENRES = re.compile(r"(.*\S)\s*\[[^\[\]]*\]")
_YEAR = re.compile(r"(.*\S)\s*\((\d{4})\)")
_QUOTES = "\"'`“”‘’«»"
_TYPOGRAPHY = str.maketrans("‘’“”–—", "''\"\"--")  # curly quotes and dashes are compared as plain ones


@dataclasses.dataclass(frozen=True)
class Ranking:
    """A parsed ranking.

    places: for each place the index of a candidate, or None for an item that is not a candidate. Such an
      item keeps its place. Repeated candidates are dropped: the first mention counts.
    valid: whether there are exactly the requested places, all distinct candidates.
    """

    places: list[int | None]
    valid: bool


def parse_ranking(answer_text: str | None, titles: list[str], *, answer: str, places: int) -> Ranking:
    """Parses the first line that begins with `Order:`, whose entries are separated by '>'.

    If `answer` is "numbers", an entry is a number from 1; brackets and a full stop are allowed. If it is
    "titles", an entry matches the candidate with exactly this title. Without an exact match it is compared
    leniently, and matches only if a single candidate fits. The first lenient comparison ignores case, spaces,
    surrounding quotes, a final full stop, typographic quotes and dashes, and the encoding of accents. The
    next ones also ignore a list of genres in brackets, and a year that only one side has.
    Entries beyond the requested places are ignored, so that listing all candidates gives no advantage.

    Args:
      answer_text: the text after the closed reasoning, or None if the reasoning is not closed.
      titles: the candidates as shown in the prompt (`ranking_prompt.shown_titles`).
    """
    lines = (answer_text or "").splitlines()
    starts = (line.strip() for line in lines)
    line = next((s for s in starts if s.casefold().startswith(ORDER.casefold())), None)
    order = line[len(ORDER) :].strip() if line else ""
    if not order:
        return Ranking([], False)
    entries = order.split(">")
    parse = _by_number if answer == "numbers" else _by_title
    indices = parse(entries[:places], titles)
    seen = set()
    ranked = [k for k in indices if k is None or not (k in seen or seen.add(k))]
    return Ranking(ranked, len(entries) == len(seen) == places)


def rank_of(ranking: Ranking, index: int) -> int:
    """The rank of candidate `index`, from 1; 0 if it is absent."""
    return ranking.places.index(index) + 1 if index in ranking.places else 0


def count_statements(reasoning: str) -> int:
    """The number of distinct lines of at least three words. Repeated lines count once."""
    lines = (" ".join(line.casefold().split()) for line in reasoning.splitlines())
    return len({line for line in lines if line.count(" ") >= 2})


def _by_number(entries: list[str], titles: list[str]) -> list[int | None]:
    matches = (_NUMBER.fullmatch(entry.strip()) for entry in entries)
    numbers = [int(match[1]) if match else 0 for match in matches]
    return [number - 1 if 1 <= number <= len(titles) else None for number in numbers]


def _by_title(entries: list[str], titles: list[str]) -> list[int | None]:
    bare, parts = [_bare(title) for title in titles], [_title_and_year(title) for title in titles]
    return [_find(entry, titles, bare, parts) for entry in entries]


def _find(entry: str, titles: list[str], bare: list[str], parts: list[tuple[str, str]]) -> int | None:
    """The candidate that an entry names, by the strictest comparison that matches any candidate."""
    title, year = _title_and_year(entry)
    for matches in (
        [k for k, other in enumerate(titles) if other == " ".join(entry.split())],
        [k for k, other in enumerate(bare) if other and other == _bare(entry)],
        [k for k, other in enumerate(parts) if title and other == (title, year)],
        [k for k, other in enumerate(parts) if title and other[0] == title and not (year and other[1])],
    ):
        if matches:
            return matches[0] if len(matches) == 1 else None
    return None


def _title_and_year(text: str) -> tuple[str, str]:
    """The title normalized for comparison, and the year after it or ''."""
    text = _bare(text)
    if match := _GENRES.fullmatch(text):
        text = _bare(match[1])
    if match := _YEAR.fullmatch(text):
        return _bare(match[1]), match[2]
    return text, ""


def _bare(text: str) -> str:
    text = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY).casefold()
    return " ".join(text.split()).strip(_QUOTES + " ").removesuffix(".").rstrip(_QUOTES)
