"""Checks the facts in a trace against its prompt: titles, genres, and who rated which item how.

Statements are parsed as the validator parses them. Conclusions (two people agree, a genre should fit) are
not facts of the prompt and are not checked.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.data.rating_scale import NONE
from r2rec_jax.prompts.ranking_prompt import peer_names
from r2rec_jax.prompts.wording import Wording
from r2rec_jax.runtime.plain_text import clean
from r2rec_jax.teachers.mentions import Names, Words
from r2rec_jax.teachers.question import Question
from r2rec_jax.teachers.statements import Statement, StatementReader, shown_items
from r2rec_jax.teachers.validator import read_trace

# title: the prompt shows the title. who: the person named (by default the user) rated the item named (by
# default the item of the previous statement), or the user likes it. rating: the prompt has that rating.
# genre: the catalogue gives the item that genre; the catalogue decides because not every prompt has genres.
KINDS = ("title", "who", "rating", "genre")

_FIELD = re.compile(r"\{\w+\}")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_YEAR = re.compile(r"\(\d{4}\)")


@dataclasses.dataclass(frozen=True)
class Fact:
    """A fact of a statement: one of KINDS, and whether the prompt supports it."""

    kind: str
    supported: bool


@dataclasses.dataclass(frozen=True)
class Checked:
    """A statement and the facts found in it; a statement without facts is unchecked."""

    text: str
    facts: tuple[Fact, ...]

    @property
    def verdict(self) -> str:
        if not self.facts:
            return "unchecked"
        return "supported" if all(fact.supported for fact in self.facts) else "unsupported"


class FactChecker:
    """Checks traces of ranking prompts of one data set in one wording.

    The checker does not guess:

    - It assigns a rating to a person and an item only if the statement has one rating, at most one person
      and at most one title.
    - It reads likes and genres only from statements that use no words but the wording's own.
    - It leaves a statement unchecked if it has a capitalised word that is neither in the wording nor in a
      title nor a companion's name. Such a statement may be about an unknown person or item.
    """

    def __init__(self, catalog: Catalog, wording: Wording):
        self.catalog, self.wording = catalog, wording
        self._people = Words(wording.peers)
        self._own = _words_of(wording)
        opening, _, close = wording.recap.partition("{history}")
        self._recap = re.compile(f"{re.escape(opening)}(.*){re.escape(close)}") if wording.recap else None
        before, _, rest = wording.together.partition("{peer}")
        after = rest.partition("{titles}")[0]
        people = "|".join(map(re.escape, wording.peers))
        self._together = re.compile(f"{re.escape(before)}({people}){re.escape(after)}(?!\\w)")
        self._question = functools.lru_cache(maxsize=1)(
            self._read_question
        )  # many traces of one question are checked in a row
        self._genres = Words({clean(genre) for genres in catalog.genres for genre in genres} - {""})

    def check(self, question: Question, reasoning: str) -> list[Checked]:
        """Checks each line of the reasoning. "It" in a statement refers to the item of the previous one."""
        lines = read_trace(reasoning, question.task).reasoning.splitlines()
        parse, prompt = self._question(question)
        last, results = set(), []
        for line, statement in zip(lines, parse(lines), strict=True):
            statement, strange = self._unshown(statement)
            facts = [] if strange else self._facts(line, statement, prompt, last)
            if statement.mentions:
                # After several titles, or an unknown name, the referent of "it" is ambiguous.
                last = statement.mentions[0] if len(statement.mentions) == 1 and not strange else set()
            results.append(Checked(line, tuple(facts)))
        return results

    def _read_question(self, question: Question) -> tuple[StatementReader, "_PromptFacts"]:
        reader = StatementReader(question, self.catalog, self.wording, self._people)
        return reader, _PromptFacts.of(question, self.wording)

    def _unshown(self, statement: Statement) -> tuple[Statement, bool]:
        """(the statement with catalogue items outside the prompt added, whether unknown names remain)."""
        if not self._names_in(statement.text):
            return statement, False
        mentions, text = self._catalogue(statement.text)
        text = _YEAR.sub(" ", text) if mentions else text
        extended = dataclasses.replace(statement, mentions=statement.mentions + mentions, text=text)
        return extended, bool(self._names_in(text))

    @functools.cached_property
    def _catalogue(self) -> Callable[[str], tuple[list[set[int]], str]]:
        """`Names.read` over the whole catalogue, cached: it is slow, and traces repeat the same texts."""
        names = Names(list(range(len(self.catalog.title))), self.catalog, self.wording)
        return functools.lru_cache(maxsize=4096)(names.read)

    def _unknown_words(self, text: str) -> list[str]:
        """The words that are neither companions' names, genres, nor in the wording."""
        text = self._genres.blank(self._people.blank(text))
        return [word for word in _WORD.findall(text) if word.casefold() not in self._own]

    def _names_in(self, text: str) -> list[str]:
        return [word for word in self._unknown_words(text) if word[0].isupper()]

    def _facts(self, line: str, s: Statement, prompt: "_PromptFacts", last: set[int]) -> list[Fact]:
        shown = [bool(mention & prompt.items) for mention in s.mentions]
        facts = [Fact("title", is_shown) for is_shown in shown]
        if self._recap and (recap := self._recap.fullmatch(line)) and not self._unknown_words(s.text):
            return facts + self._recapped(recap[1], prompt)
        facts += [Fact("title", False)] * len(_YEAR.findall(s.text))  # a year that belongs to no title found
        facts += [Fact("who", False) for person in s.people - prompt.people]
        own_words, subjects = (
            not self._unknown_words(s.text),
            s.mentions or ([last] if last and s.ratings else []),
        )
        bound = len(s.ratings) == len(subjects) == 1 and len(s.people) <= 1
        if bound and all(shown):
            facts += prompt.rated(next(iter(s.people), None), subjects[0], s.ratings[0])
        elif own_words and not s.people and not (s.ratings if self.wording.scale.kind != NONE else bound):
            facts += [
                Fact("who", prompt.likes(item))
                for item, is_shown in zip(subjects, shown, strict=True)
                if is_shown
            ]
        if own_words:
            genres = self._genres.find(s.text)
            facts += [
                Fact("genre", self._has_genre(genre, mention))
                for mention in subjects
                for genre in sorted(genres)
            ]
        return facts

    def _recapped(self, history: str, prompt: "_PromptFacts") -> list[Fact]:
        """Facts of a recap: the user rated or likes each item, and so did the companion named before it."""
        parts, facts = self._together.split(history), []
        for person, titles in zip([None, *parts[1::2]], parts[::2], strict=True):
            for mention in self._catalogue(titles)[0]:
                own = any((None, item) in prompt.ratings for item in mention)
                shared = person is None or any((person, item) in prompt.ratings for item in mention)
                facts.append(Fact("who", own and shared))
        return facts

    def _has_genre(self, genre: str, mention: set[int]) -> bool:
        return any(genre in map(clean, self.catalog.genres[item]) for item in mention)


@dataclasses.dataclass(frozen=True)
class _PromptFacts:
    """The facts in a prompt. ratings: (person, item) -> ratings; person None is the user; likes have none."""

    items: set[int]
    people: set[str]
    ratings: dict[tuple[str | None, int], set[float]]
    liked: set[int]

    @classmethod
    def of(cls, question: Question, wording: Wording) -> "_PromptFacts":
        record, names = question.record, peer_names(question.chains, wording)
        ratings = {}
        edges = [edge for chain in question.chains for edge in chain.edges]
        for who, item, rating in edges:
            ratings.setdefault((names.get(who), item), set()).add(rating)
        events = wording.scale.kind == NONE
        has_ratings = events or "{rating}" in wording.rated  # otherwise the history has no ratings
        for item, rating in record.history:
            ratings.setdefault((None, item), set()).update([rating] if has_ratings else [])
        for item in record.likes:
            ratings.setdefault((None, item), set()).update([1.0] if events else [])
        own = [(item, rating) for who, item, rating in edges if who == record.user]
        liked = {item for item, rating in [*own, *record.history] if wording.is_like(rating)}
        items = shown_items(question) | set(record.candidates.tolist())
        return cls(items, set(names.values()), ratings, liked | set(record.likes))

    def rated(self, person: str | None, mention: set[int], rating: float) -> list[Fact]:
        ratings = [self.ratings[person, item] for item in mention if (person, item) in self.ratings]
        if not ratings:
            return [Fact("who", False)] if person is None or person in self.people else []
        return [Fact("who", True), Fact("rating", any(rating in shown for shown in ratings))]

    def likes(self, mention: set[int]) -> bool:
        return bool(mention & self.liked)


def _words_of(wording: Wording) -> set[str]:
    """The words of the wording's own statements, case-folded."""
    w = wording
    templates = [*w.hops, *w.link_hops, *w.guide, w.like_hop, w.taste_like, w.taste, w.taste_chains]
    templates += [w.taste_open, w.taste_unknown, *w.agreement, w.genres, w.year, *w.listing]
    templates += [w.recap, w.together] if w.recap else []
    return {word.casefold() for text in templates for word in _WORD.findall(_FIELD.sub(" ", text))}
