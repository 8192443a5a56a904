"""Parses the lines of a trace into statements: the items, people and ratings that each mentions."""

import dataclasses

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.data.rating_scale import NONE
from r2rec_jax.prompts.wording import Wording
from r2rec_jax.runtime.plain_text import clean
from r2rec_jax.teachers.mentions import Names, Ratings, Words
from r2rec_jax.teachers.question import Question


@dataclasses.dataclass(frozen=True)
class Statement:
    """One line of a trace. mentions: for each title in the line, the items it may refer to."""

    text: str  # without titles, and without genres and traits that hold digits
    mentions: list[set[int]]
    people: set[str]
    ratings: list[float]

    @property
    def items(self) -> set[int]:
        return set().union(*self.mentions)


class StatementReader:
    """Parses the lines of any trace of one question. It recognises only items that the prompt shows."""

    def __init__(self, question: Question, catalog: Catalog, wording: Wording, people: Words):
        """`people` matches the wording's names of companions."""
        record, self._shown = question.record, shown_items(question)
        peers = {peer for chain in question.chains for peer in chain.peers}
        demographics = [record.demographics, *(catalog.demographics[peer] for peer in peers)]
        facts = [clean(value) for person in demographics for value in person.values()]
        items = self._shown | set(record.candidates.tolist())
        facts += [clean(genre) for item in items for genre in catalog.genres[item]]
        self._numbered = Words(fact for fact in facts if len(fact) > 1 and any(c.isdigit() for c in fact))
        self._names, self._people = Names(sorted(items), catalog, wording), people
        self._ratings, self._events = Ratings(wording.scale), wording.scale.kind == NONE

    def __call__(self, lines: list[str]) -> list[Statement]:
        """One statement per line."""
        return [self._statement(line) for line in lines]

    def _statement(self, line: str) -> Statement:
        mentions, text = self._names.read(line)
        # A title that means both a candidate and an item shown in a chain refers to the shown item.
        mentions = [mention & self._shown or mention for mention in mentions]
        text = self._numbered.blank(text)
        people, ratings = self._people.find(text), self._ratings(text)
        if self._events and (mentions or people):
            ratings = [1.0]  # an event without a rating counts as 1, so naming the event states its rating
        return Statement(text, mentions, people, ratings)


def shown_items(question: Question) -> set[int]:
    """The items that the prompt shows besides the candidates."""
    shown = {item for chain in question.chains for item in chain.items}
    if question.task == "ranking":
        shown |= {*question.record.likes, *(item for item, _ in question.record.history)}
    return shown
