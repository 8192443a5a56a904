"""The moments of a log as pretraining text: stretches of history, and prompts with reasoning and answer."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from r2rec_jax.pipeline.packed_rows import Weighed
from r2rec_jax.prompts.answer_parser import ORDER
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.ranking_prompt import RankingRecord, rated_text, situation
from r2rec_jax.prompts.wording import Wording

ITEM, ANSWER, NARRATED = 1.0, 4.0, 1.0  # what tokens count: of histories, of an answer, of words
LEAST_ROOM = 24  # tokens of a row that are left empty rather than filled with a shorter stretch of history
PROMPTS = 0.5  # share of rows with options that are prompts
WHOLE = 0.7  # share of prompts with all of the chains; the others have fewer
BREAKS = 0.12  # share of the liked items of a stretch that are told as answers are


class Histories:
    """Rows in the words of prompts, of which every item and all reasoning is to be foretold.

    Without options: stretches of history, in which some items stand where an answer would: a model foretells
    an item best from the one right before it, and has to learn to do so from further back. With options there
    are also prompts as a whole, words of `narrate` and the answer. The turns of a conversation are left to
    SFT. What has no room loses the oldest of its history.
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
        if options and rng.random() < PROMPTS:
            yield self._prompt(rng, length, options)
            return
        while length >= LEAST_ROOM:
            window = self.moments.window(rng, length)
            said = self._past(window.user, window.rated, length - 1, rng)
            said.add([self.chat.end])
            length -= len(said)
            yield said

    def _prompt(self, rng: np.random.Generator, length: int, options: int) -> Weighed:
        """What a prompt tells before it asks, reasoning, and the answer."""
        c = self.config
        chains = c.chains if rng.random() < WHOLE else int(rng.integers(c.chains + 1))
        shown = {"likes": c.likes, "chains": chains, "history": c.history}
        record = self.moments.record(self.moments.moment(rng), rng, options=options, **shown)
        bare = dataclasses.replace(record, demographics={}, history=[])
        rest = Weighed()
        rest.add(self.chat.encode(situation(bare, self.moments.dataset.catalog, self.words, answer="titles")))
        rest.add(self.chat.encode(self.narrate(record) + "\n"), NARRATED)
        rest.add(self._order)
        rest.add(self._rated(record.truth, self.words.liked), ANSWER)
        rest.add([self.chat.end])
        said = self._past(record.user, record.history, length - len(rest))
        said.extend(rest)
        return said

    def _past(
        self, user: int, history: list[tuple[int, float]], room: int, rng: np.random.Generator | None = None
    ) -> Weighed:
        """Who the user is and a history, from the user marker on, within `room` tokens.

        With `rng`, some of its liked items are told as answers are.
        """
        said, rated = Weighed(), Weighed()
        who = self._encode(self.words.traits(self.demographics[user], self.words.about))
        said.add([self.chat.user, *who])
        room -= len(said) + len(self._saw) + len(self._close)
        for one in reversed(history):
            piece = Weighed()
            if rng is not None and self.words.is_like(one[1]) and rng.random() < BREAKS:
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
