"""The moments of a log as pretraining text: histories that go on, and what prompts show in between."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from r2rec_jax.pipeline.pretrain import Weighed
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.ranking import RankingRecord, rated_text, situation
from r2rec_jax.prompts.wording import LIKED, Wording

ITEM, ANSWER, NARRATED = (
    1.0,
    5.0,
    0.5,
)  # what tokens count: of histories, of a choice among candidates, of words
PER_ITEM = 1.6  # tokens of a rated item: a title and, of some, a word for a low rating
LEAST_ROOM = 24  # tokens of a row that are left empty rather than filled with a shorter stretch of history
PROMPTS = 0.35  # share of rows that show as much as a prompt does
PARTS = (0.3, 0.3, 0.75, 0.3)  # share of interruptions with likes, with chains, with candidates, with words
STRETCH = 8  # most items of a history between interruptions, until the next that was liked


class Histories:
    """Rows in the words of prompts. Every item of a history is to be foretold.

    Without options: stretches of history. With options: a history with interruptions, each of some of
    these: likes, chains, candidates with what comes next among them, words of `narrate` about all that. A
    model of stretches alone foretells from the last few tokens; this one has to look further back, and to
    choose from a list. PROMPTS of the rows have one interruption, as in a prompt. To be asked, and to reason
    and answer in form, is left to SFT. What has no room loses the oldest of its history.
    """

    def __init__(self, moments: Moments, chat: Chat, words: Wording, narrate: Callable[[RankingRecord], str]):
        """`chat`: of a tokenizer for which pieces of a prompt are tokens of their own, `title_tokenizer`."""
        self.moments, self.chat, self.words, self.narrate = moments, chat, words, narrate
        self.demographics, self.config = moments.dataset.catalog.demographics, moments.config
        self._encode = functools.lru_cache(maxsize=None)(chat.encode)
        self._rated = functools.lru_cache(maxsize=None)(self._encode_rated)

    def __reduce__(self):
        return Histories, (self.moments, self.chat, self.words, self.narrate)

    def row(self, rng: np.random.Generator, length: int, options: int) -> Iterator[Weighed]:
        if options:
            yield (
                self._prompt(rng, length, options)
                if rng.random() < PROMPTS
                else self._interrupted(rng, length, options)
            )
            return
        while length >= LEAST_ROOM:
            window = self.moments.window(rng, int(length / PER_ITEM))
            said = self._past(window.user, window.rated, length - 1)
            said.add([self.chat.end])
            length -= len(said)
            yield said

    def _prompt(self, rng: np.random.Generator, length: int, options: int) -> Weighed:
        """What a prompt tells before it asks, and what its user saw next."""
        c = self.config
        chains, words = int(rng.integers(c.chains + 1)), rng.random() < 0.5
        shown = {"likes": c.likes, "chains": chains, "history": c.history}
        record = self.moments.record(self.moments.moment(rng), rng, options=options, **shown)
        rest = self._interruption(record, True, words)
        rest.extend(self._next([(record.truth, LIKED)], ANSWER))
        rest.add([self.chat.end])
        said = self._past(record.user, record.history, length - len(rest))
        said.extend(rest)
        return said

    def _interrupted(self, rng: np.random.Generator, length: int, options: int) -> Weighed:
        """A history from its middle on, with as many interruptions as there is room for."""
        c, moments = self.config, self.moments
        row = moments.moment(rng)
        said = self._past(
            int(moments.user[row]), moments.before(row, int(rng.integers(1, c.history + 1))), length
        )
        while row is not None:
            likes, chains, candidates, words = (rng.random(len(PARTS)) < PARTS).tolist()
            shown = {"likes": likes * c.likes, "chains": chains * c.chains, "history": 0}
            record = moments.record(row, rng, options=int(rng.integers(2, options + 1)), **shown)
            part = self._interruption(record, candidates, words)
            after = moments.next_moment(row, int(rng.integers(1, STRETCH + 1)))
            rated = [(record.truth, LIKED), *(moments.rated(row + 1, after) if after else [])]
            part.extend(self._next(rated, ANSWER if candidates else ITEM))
            if len(said) + len(part) > length:
                break
            said.extend(part)
            row = after
        return said

    def _interruption(self, record: RankingRecord, candidates: bool, words: bool) -> Weighed:
        """What a record shows besides its history, with candidates or without."""
        bare = dataclasses.replace(record, demographics={}, history=[])
        told = situation(bare, self.moments.dataset.catalog, self.words, answer="titles")
        if not candidates:
            told = told[: told.rindex(self.words.candidates.split("{")[0])]
        said = Weighed()
        said.add(self.chat.encode(told))
        if words:
            said.add(self.chat.encode(self.narrate(record) + "\n"), NARRATED)
        return said

    def _next(self, rated: list[tuple[int, float]], first: float) -> Weighed:
        """How a history goes on, its first item counting `first`."""
        opening, close = self._frame()
        said = Weighed()
        said.add(opening)
        for place, one in enumerate(rated):
            said.add(self._rated(*one), ITEM if place else first)
        said.add(close)
        return said

    def _past(self, user: int, history: list[tuple[int, float]], room: int) -> Weighed:
        """Who the user is and a history, from the user marker on, within `room` tokens."""
        opening, close = self._frame()
        said, rated = Weighed(), []
        said.add(
            [self.chat.user, *self._encode(self.words.traits(self.demographics[user], self.words.about))]
        )
        room -= len(said) + len(opening) + len(close)
        for one in reversed(history):
            room -= len(piece := self._rated(*one))
            if room < 0:
                break
            rated = [*piece, *rated]
        if rated:
            said.add(opening)
            said.add(rated, ITEM)
            said.add(close)
        return said

    def _frame(self) -> tuple[list[int], list[int]]:
        """What stands before and after the items of a history."""
        opening, close = self.words.history.split("{history}")
        return self._encode(opening), self._encode(close)

    def _encode_rated(self, item: int, rating: float) -> list[int]:
        return self.chat.encode(rated_text(item, rating, self.moments.dataset.catalog, self.words))
