"""Whether what a trace states is what its prompt says: titles, genres, who rated what, and how.

A statement is read as the validator reads it. What it concludes (two people agree, a genre should fit) is
no fact of the prompt and is not checked.
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

# title: a title named is one that the prompt shows. who: the person named, else the user, rated the item
# named, else the one rated last; or the user likes it. rating: that rating is the one told. genre: the item
# is of the genre; by the catalogue, since not every prompt tells genres.
KINDS = ("title", "who", "rating", "genre")

_FIELD = re.compile(r"\{\w+\}")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_YEAR = re.compile(r"\(\d{4}\)")


@dataclasses.dataclass(frozen=True)
class Fact:
    """One of KINDS, and whether the prompt supports it."""

    kind: str
    supported: bool


@dataclasses.dataclass(frozen=True)
class Checked:
    """A statement and the facts that could be read out of it; without any it is unchecked."""

    text: str
    facts: tuple[Fact, ...]

    @property
    def verdict(self) -> str:
        if not self.facts:
            return "unchecked"
        return "supported" if all(fact.supported for fact in self.facts) else "unsupported"


class FactChecker:
    """Checks traces of ranking prompts of one data set in one wording.

    Nothing is guessed. A rating is bound to who and what only where a statement has one rating, at most one
    person and at most one title. That the user likes what is named, and which genre it has, is read only
    from statements in the wording's own words. A statement with a word that begins with a capital and is
    neither the wording's nor a title or a name known is unchecked: it may be about somebody or something
    that the reader does not know.
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
        self._question = functools.lru_cache(maxsize=1)(self._read_question)  # often asked of many traces
        self._genres = Words({clean(genre) for genres in catalog.genres for genre in genres} - {""})

    def check(self, question: Question, reasoning: str) -> list[Checked]:
        """Each line of the reasoning. A statement may refer to the item of the one before ("it")."""
        lines = read_trace(reasoning, question.task).reasoning.splitlines()
        read, prompt = self._question(question)
        last, found = set(), []
        for line, statement in zip(lines, read(lines), strict=True):
            statement, strange = self._unshown(statement)
            facts = [] if strange else self._facts(line, statement, prompt, last)
            if statement.mentions:
                # Of several titles, or in words that could not be read, nobody knows what "it" would be.
                last = statement.mentions[0] if len(statement.mentions) == 1 and not strange else set()
            found.append(Checked(line, tuple(facts)))
        return found

    def _read_question(self, question: Question) -> tuple[StatementReader, "_Prompt"]:
        reader = StatementReader(question, self.catalog, self.wording, self._people)
        return reader, _Prompt.of(question, self.wording)

    def _unshown(self, statement: Statement) -> tuple[Statement, bool]:
        """The statement with mentions of what the prompt does not show, and whether other names are left."""
        if not self._names_in(statement.text):
            return statement, False
        mentions, text = self._catalogue(statement.text)
        text = _YEAR.sub(" ", text) if mentions else text
        read = dataclasses.replace(statement, mentions=statement.mentions + mentions, text=text)
        return read, bool(self._names_in(text))

    @functools.cached_property
    def _catalogue(self) -> Callable[[str], tuple[list[set[int]], str]]:
        """`Names.read` of every item: slow to make and to search, and traces tell the same again."""
        names = Names(list(range(len(self.catalog.title))), self.catalog, self.wording)
        return functools.lru_cache(maxsize=4096)(names.read)

    def _rest(self, text: str) -> list[str]:
        """The words that are neither people, genres, nor the wording's own."""
        text = self._genres.blank(self._people.blank(text))
        return [word for word in _WORD.findall(text) if word.casefold() not in self._own]

    def _names_in(self, text: str) -> list[str]:
        return [word for word in self._rest(text) if word[0].isupper()]

    def _facts(self, line: str, s: Statement, prompt: "_Prompt", last: set[int]) -> list[Fact]:
        shown = [bool(mention & prompt.items) for mention in s.mentions]
        facts = [Fact("title", one) for one in shown]
        if self._recap and (recap := self._recap.fullmatch(line)) and not self._rest(s.text):
            return facts + self._recapped(recap[1], prompt)
        facts += [Fact("title", False)] * len(_YEAR.findall(s.text))  # a title's year, but not its own
        facts += [Fact("who", False) for person in s.people - prompt.people]
        own_words, about = not self._rest(s.text), s.mentions or ([last] if last and s.ratings else [])
        bound = len(s.ratings) == len(about) == 1 and len(s.people) <= 1
        if bound and all(shown):
            facts += prompt.rated(next(iter(s.people), None), about[0], s.ratings[0])
        elif own_words and not s.people and not (s.ratings if self.wording.scale.kind != NONE else bound):
            facts += [
                Fact("who", prompt.likes(item)) for item, known in zip(about, shown, strict=True) if known
            ]
        if own_words:
            told = self._genres.found(s.text)
            facts += [Fact("genre", self._is(genre, mention)) for mention in about for genre in sorted(told)]
        return facts

    def _recapped(self, history: str, prompt: "_Prompt") -> list[Fact]:
        """Every item is one that the user rated or likes, and the companion named before it rated too."""
        parts, facts = self._together.split(history), []
        for person, titles in zip([None, *parts[1::2]], parts[::2], strict=True):
            for mention in self._catalogue(titles)[0]:
                own = any((None, item) in prompt.ratings for item in mention)
                shared = person is None or any((person, item) in prompt.ratings for item in mention)
                facts.append(Fact("who", own and shared))
        return facts

    def _is(self, genre: str, mention: set[int]) -> bool:
        return any(genre in map(clean, self.catalog.genres[item]) for item in mention)


@dataclasses.dataclass(frozen=True)
class _Prompt:
    """What a prompt says. ratings: of (person, item), None being the user; a like has none that is told."""

    items: set[int]
    people: set[str]
    ratings: dict[tuple[str | None, int], set[float]]
    liked: set[int]

    @classmethod
    def of(cls, question: Question, wording: Wording) -> "_Prompt":
        record, names = question.record, peer_names(question.chains, wording)
        ratings = {}
        edges = [edge for chain in question.chains for edge in chain.edges]
        for who, item, rating in edges:
            ratings.setdefault((names.get(who), item), set()).add(rating)
        events = wording.scale.kind == NONE
        told = events or "{rating}" in wording.rated  # else a history does not show ratings
        for item, rating in record.history:
            ratings.setdefault((None, item), set()).update([rating] if told else [])
        for item in record.likes:
            ratings.setdefault((None, item), set()).update([1.0] if events else [])
        own = [(item, rating) for who, item, rating in edges if who == record.user]
        liked = {item for item, rating in [*own, *record.history] if wording.is_like(rating)}
        items = shown_items(question) | set(record.candidates.tolist())
        return cls(items, set(names.values()), ratings, liked | set(record.likes))

    def rated(self, person: str | None, mention: set[int], rating: float) -> list[Fact]:
        told = [self.ratings[person, item] for item in mention if (person, item) in self.ratings]
        if not told:
            return [Fact("who", False)] if person is None or person in self.people else []
        return [Fact("who", True), Fact("rating", any(rating in one for one in told))]

    def likes(self, mention: set[int]) -> bool:
        return bool(mention & self.liked)


def _words_of(wording: Wording) -> set[str]:
    """What the wording's own statements are made of, in small letters."""
    w = wording
    templates = [*w.hops, *w.link_hops, *w.guide, w.like_hop, w.taste_like, w.taste, w.taste_chains]
    templates += [w.taste_open, w.taste_unknown, *w.agreement, w.genres, w.year, *w.listing]
    templates += [w.recap, w.together] if w.recap else []
    return {word.casefold() for text in templates for word in _WORD.findall(_FIELD.sub(" ", text))}
