"""Rankings and statements read back from a completion. Strict: nothing is guessed or completed."""

import dataclasses
import re
import unicodedata

ORDER = "Order:"
RATING = "Rating:"

_NUMBER = re.compile(r"[\[(]?([0-9]{1,6})[\])]?\.?")
_GENRES = re.compile(r"(.*\S)\s*\[[^\[\]]*\]")
_YEAR = re.compile(r"(.*\S)\s*\((\d{4})\)")
_QUOTES = "\"'`“”‘’«»"
_TYPOGRAPHY = str.maketrans("‘’“”–—", "''\"\"--")  # which of them a model writes says nothing of the title


@dataclasses.dataclass(frozen=True)
class Ranking:
    """A parsed answer.

    places: for each place the index of a candidate, or None for something off the list, which keeps
      its place. A candidate mentioned again is dropped: the first mention counts.
    valid: exactly the places asked for, all on the list, all distinct.
    """

    places: list[int | None]
    valid: bool


def parse_ranking(answer_text: str | None, titles: list[str], *, answer: str, places: int) -> Ranking:
    """Reads the first line that begins with `Order:`, its pieces separated by '>'.

    A piece is, by `answer`, a number from 1 (brackets and a full stop allowed) or a title. The candidate
    whose name it is exactly is meant. Where there is none, the one is meant that has this name when both are
    read leniently, and none where several have: case, space, quotes around it and a final full stop are
    ignored, curly quotes and dashes are plain ones, an accent is one however it is encoded; then also a list
    of genres in brackets, and a year where only one side has one.
    What stands beyond the places asked for is not read, so that listing everything does not pay.

    Args:
      answer_text: what follows the closed reasoning; None when it never closed.
      titles: the candidates as shown (`ranking.shown_titles`).
    """
    lines = (answer_text or "").splitlines()
    starts = (line.strip() for line in lines)
    line = next((s for s in starts if s.casefold().startswith(ORDER.casefold())), None)
    said = line[len(ORDER) :].strip() if line else ""
    if not said:
        return Ranking([], False)
    pieces = said.split(">")
    read = _by_number if answer == "numbers" else _by_title
    found = read(pieces[:places], titles)
    seen = set()
    ranked = [k for k in found if k is None or not (k in seen or seen.add(k))]
    return Ranking(ranked, len(pieces) == len(seen) == places)


def rank_of(ranking: Ranking, index: int) -> int:
    """The place of candidate `index`, from 1; 0 when absent."""
    return ranking.places.index(index) + 1 if index in ranking.places else 0


def count_statements(reasoning: str) -> int:
    """Distinct lines of at least three words: repeating a step does not make another."""
    lines = (" ".join(line.casefold().split()) for line in reasoning.splitlines())
    return len({line for line in lines if line.count(" ") >= 2})


def _by_number(pieces: list[str], titles: list[str]) -> list[int | None]:
    matches = (_NUMBER.fullmatch(piece.strip()) for piece in pieces)
    numbers = [int(match[1]) if match else 0 for match in matches]
    return [number - 1 if 1 <= number <= len(titles) else None for number in numbers]


def _by_title(pieces: list[str], titles: list[str]) -> list[int | None]:
    bare, parts = [_bare(title) for title in titles], [_title_and_year(title) for title in titles]
    return [_find(piece, titles, bare, parts) for piece in pieces]


def _find(piece: str, titles: list[str], bare: list[str], parts: list[tuple[str, str]]) -> int | None:
    """The candidate that a piece names: by its exact name, else by the strictest reading that fits any."""
    title, year = _title_and_year(piece)
    for fits in (
        [k for k, other in enumerate(titles) if other == " ".join(piece.split())],
        [k for k, other in enumerate(bare) if other and other == _bare(piece)],
        [k for k, other in enumerate(parts) if title and other == (title, year)],
        [k for k, other in enumerate(parts) if title and other[0] == title and not (year and other[1])],
    ):
        if fits:
            return fits[0] if len(fits) == 1 else None
    return None


def _title_and_year(text: str) -> tuple[str, str]:
    """A title fit for comparison, and the year after it or ''."""
    text = _bare(text)
    if match := _GENRES.fullmatch(text):
        text = _bare(match[1])
    if match := _YEAR.fullmatch(text):
        return _bare(match[1]), match[2]
    return text, ""


def _bare(text: str) -> str:
    text = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY).casefold()
    return " ".join(text.split()).strip(_QUOTES + " ").removesuffix(".").rstrip(_QUOTES)
