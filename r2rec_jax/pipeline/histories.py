"""The moments of a log as pretraining text: histories that go on, and what prompts show in between."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from r2rec_jax.pipeline.pretrain import Weighed
from r2rec_jax.prompts.answer import ORDER
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.ranking import RankingRecord, rated_text, situation
from r2rec_jax.prompts.wording import LIKED, Wording

# What tokens count: of histories, of a choice among candidates, of words.
ITEM, ANSWER, NARRATED = 1.0, 12.0, 0.25
PER_ITEM = 1.6  # tokens of a rated item: a title and, of some, a word for a low rating
LEAST_ROOM = 24  # tokens of a row that are left empty rather than filled with a shorter stretch of history
WHOLE = 0.7  # share of prompts with all of the chains; the others have fewer
BREAKS = 0.12  # share of the items of a stretch that are told as answers are
KINDS = (0.25, 0.45, 0.3)  # of rows with options: stretches, prompts, histories with interruptions
PARTS = (0.3, 0.3, 0.75, 0.3)  # share of interruptions with likes, with chains, with candidates, with words
PAST = 30  # most items before the first interruption
STRETCH = 8  # most items of a history between interruptions, until the next that was liked


class Histories:
    """Rows in the words of prompts. Every item of a history is to be foretold.

    Without options: stretches of history, in which some items stand where an answer would: a model foretells
    an item best from the one right before it, and has to learn to do so from further back. With options there
    are also prompts as a whole, words of `narrate` and the answer; and histories with interruptions, each of
    some of these: likes, chains, candidates with what comes next among them, words. Here the model learns to
    choose from a list. The turns of a conversation are left to SFT. What has no room loses the oldest of its
    history.
    """

    def __init__(self, moments: Moments, chat: Chat, words: Wording, narrate: Callable[[RankingRecord], str]):
        """`chat`: of a tokenizer for which pieces of a prompt are tokens of their own, `title_tokenizer`."""
        self.moments, self.chat, self.words, self.narrate = moments, chat, words, narrate
        self.demographics, self.config = moments.dataset.catalog.demographics, moments.config
        self._encode = functools.lru_cache(maxsize=None)(chat.encode)
        self._rated = functools.lru_cache(maxsize=None)(self._encode_rated)
        opening, close = words.history.split("{history}")
        self._saw, self._close = self._encode(opening), self._encode(close)
        self._order = [chat.end_think, *self._encode(f"\n\n{ORDER}")]

    def __reduce__(self):
        return Histories, (self.moments, self.chat, self.words, self.narrate)

    def row(self, rng: np.random.Generator, length: int, options: int) -> Iterator[Weighed]:
        kind = rng.choice(len(KINDS), p=KINDS) if options else 0
        if kind == 0:
            while length >= LEAST_ROOM:
                window = self.moments.window(rng, int(length / PER_ITEM))
                said = self._past(window.user, window.rated, length - 1, rng)
                said.add([self.chat.end])
                length -= len(said)
                yield said
        else:
            yield (self._prompt if kind == 1 else self._interrupted)(rng, length, options)

    def _prompt(self, rng: np.random.Generator, length: int, options: int) -> Weighed:
        """What a prompt tells before it asks, reasoning, and the answer."""
        c = self.config
        chains = c.chains if rng.random() < WHOLE else int(rng.integers(c.chains + 1))
        shown = {"likes": c.likes, "chains": chains, "history": c.history}
        record = self.moments.record(self.moments.moment(rng), rng, options=options, **shown)
        rest = self._interruption(record, True, True)
        rest.add(self._order)
        rest.add(self._rated(record.truth, LIKED), ANSWER)
        rest.add([self.chat.end])
        said = self._past(record.user, record.history, length - len(rest))
        said.extend(rest)
        return said

    def _interrupted(self, rng: np.random.Generator, length: int, options: int) -> Weighed:
        """A history from its middle on, with as many interruptions as there is room for."""
        c, moments = self.config, self.moments
        row = moments.moment(rng)
        before = moments.before(row, int(rng.integers(1, PAST + 1)))
        said = self._past(int(moments.user[row]), before, length)
        while row is not None:
            likes, chains, candidates, words = (rng.random(len(PARTS)) < PARTS).tolist()
            shown = {"likes": likes * c.likes, "chains": chains * c.chains, "history": 0}
            record = moments.record(row, rng, options=int(rng.integers(2, options + 1)), **shown)
            part = self._interruption(record, candidates, words)
            after = moments.next_moment(row, int(rng.integers(1, STRETCH + 1)))
            part.add(self._order if candidates else self._saw)
            part.add(self._rated(record.truth, LIKED), ANSWER if candidates else ITEM)
            for one in moments.rated(row + 1, after) if after else []:
                part.add(self._rated(*one), ITEM)
            part.add(self._close)
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

    def _past(
        self, user: int, history: list[tuple[int, float]], room: int, rng: np.random.Generator | None = None
    ) -> Weighed:
        """Who the user is and a history, from the user marker on, within `room` tokens.

        With `rng`, some of its items are told as answers are.
        """
        said, rated = Weighed(), Weighed()
        who = self._encode(self.words.traits(self.demographics[user], self.words.about))
        said.add([self.chat.user, *who])
        room -= len(said) + len(self._saw) + len(self._close)
        for one in reversed(history):
            piece = Weighed()
            if rng is not None and rng.random() < BREAKS:
                piece.add([*self._close, *self._order])
            piece.add(self._rated(*one), ITEM)
            room -= len(piece)
            if room < 0:
                break
            piece.extend(rated)
            rated = piece
        if rated.tokens:
            said.add(self._saw)
            said.extend(rated)
            said.add(self._close)
        return said

    def _encode_rated(self, item: int, rating: float) -> list[int]:
        return self.chat.encode(rated_text(item, rating, self.moments.dataset.catalog, self.words))
