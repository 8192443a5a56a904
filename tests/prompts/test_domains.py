"""The words of each domain: prompts in full, read by people, and no word of another domain or scale in them.

    python -m tests.prompts.test_domains

writes tests/prompts/golden again.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from r2rec_jax.data.rating_scale import COUNTS, FIVE_STARS, NONE, STARS, Scale
from r2rec_jax.prompts.domains import DOMAINS
from r2rec_jax.prompts.ranking_prompt import ranking_prompt
from r2rec_jax.prompts.rating_prompt import rating_prompt
from r2rec_jax.prompts.wording import Wording, wording
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers.template import narration, rating_trace
from tests.prompts.test_ranking_prompt import CHAIN, FILMS, RECORD

GOLDEN = Path(__file__).parent / "golden"
EVENTS = Scale(NONE, 1, 1, 1)
PLAYS = Scale(COUNTS, 1, 40, 1)
TEN = Scale(STARS, 2, 10, 2)
HALVES = Scale(STARS, 0.5, 5, 0.5)
EACH = {
    "movies": wording("movies"),
    "movies_ten": wording("movies", TEN),
    "movies_half_stars": wording("movies", HALVES),
    "books": wording("books", dated=False),
    "products": wording("products", dated=False),
    "products_events": wording("products", EVENTS, dated=False),
    "games_events": wording("games", EVENTS, dated=False),
    "music_counts": wording("music", PLAYS, dated=False),
    "items": wording("items", dated=False),
}


def full_text(words: Wording, dated: bool) -> str:
    """Prompts, and what the template teacher writes to them, of one user."""
    convert = {COUNTS: lambda r: 2 ** round(r), NONE: lambda _: 1.0, STARS: lambda r: r}[words.scale.kind]
    if words.scale in (TEN, HALVES):
        convert = {TEN: lambda r: 2 * round(r), HALVES: lambda r: r}[words.scale]
    chain = dataclasses.replace(
        CHAIN, **{name: float(convert(getattr(CHAIN, name))) for name in ("r00", "r10", "r11", "r01")}
    )
    record = dataclasses.replace(RECORD, chains=[chain], history=[(0, float(convert(3.0)))])
    catalog = FILMS if dated else dataclasses.replace(FILMS, year=np.zeros(len(FILMS.title), np.int32))
    parts = [ranking_prompt(record, catalog, words, answer="titles", places=2)]
    parts.append(narration(record, catalog, words))
    if words.scale.kind == STARS:
        parts.append(rating_prompt(chain, catalog, record.demographics, words))
        parts.append("\n".join(rating_trace(chain, catalog, words)))
    return "\n\n----\n\n".join(parts) + "\n"


def spoken(value) -> str:
    """All text of a wording's templates, without the names of fields."""
    if isinstance(value, str):
        return re.sub(r"\{\w+\}", " ", value)
    if isinstance(value, dict | tuple | list):
        return " ".join(map(spoken, value.values() if isinstance(value, dict) else value))
    return ""


@pytest.mark.parametrize("name", EACH)
def test_a_domain_reads_as_it_was_read(name):
    text = full_text(EACH[name], dated=name.startswith("movies"))
    assert text == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("scale", [TEN, HALVES, PLAYS, EVENTS, FIVE_STARS], ids=str)
@pytest.mark.parametrize("name", DOMAINS)
def test_no_wording_has_words_of_another_domain_or_scale(name, scale):
    words = wording(name, scale)
    text = spoken(dataclasses.asdict(words)).casefold()
    foreign = {
        word for other, domain in DOMAINS.items() if other != name for word in dataclasses.astuple(domain)
    }
    found = {word for word in foreign if re.search(rf"\b{word}\b", text)}
    assert found <= set(dataclasses.astuple(DOMAINS[name]))
    if scale.kind != STARS:
        assert not re.search(r"\b(rat(ed?|ings?)|gave|stars?|worst|likes?|liked)\b", text)
    elif scale != FIVE_STARS:
        assert "1 to 5" not in text and "1 (worst) to 5 (best)" not in text
        assert f"{scale.least:g} (worst) to {scale.most:g} (best)" in text
    assert not re.search(r"\ba (8|11|18)\b", full_text(words, dated=True))  # "an 8"


def test_years_are_named_where_titles_have_them():
    for name in DOMAINS:
        assert "title (year)" in spoken(wording(name).form)
        assert "year" not in spoken(dataclasses.asdict(wording(name, dated=False)))


def test_a_rating_keeps_the_digits_that_it_has():
    shown = map(wording("movies").rating, np.float32([4, 3.5, 0.1, 4.7, 123456.5, 1e6, -0.0]).tolist())
    assert list(shown) == ["4", "3.5", "0.1", "4.7", "123456.5", "1000000", "0"]


def test_counts_are_told_as_times():
    words = wording("music", PLAYS)
    assert [words.rating(count) for count in (1, 2, 3, 1200)] == ["once", "twice", "3 times", "1200 times"]


def test_the_tiny_model_has_no_words_for_events():
    with pytest.raises(UserError, match=r"prompt.wording='compact'.*use movies, .*mini"):
        wording("compact", EVENTS)


if __name__ == "__main__":
    for name, words in EACH.items():
        (GOLDEN / f"{name}.txt").write_text(full_text(words, dated=name.startswith("movies")), "utf-8")
