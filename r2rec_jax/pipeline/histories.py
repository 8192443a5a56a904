"""Pretraining text from the moments of a log: sections of history, and prompts with reasoning and answer."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from r2rec_jax.pipeline.packed_rows import WeightedTokens
from r2rec_jax.prompts.answer_parser import ORDER
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.ranking_prompt import RankingRecord, context_text, rated_text
from r2rec_jax.prompts.wording import Wording

ITEM, ANSWER, NARRATED = 1.0, 4.0, 1.0  # loss weights of tokens of histories, answers and reasoning
LEAST_ROOM = 24  # tokens; a smaller rest of a row stays empty
PROMPTS = 0.5  # fraction of prompts among rows with options
WHOLE = 0.7  # fraction of prompts with all chains; the others have fewer
BREAKS = 0.12  # fraction of the liked items of a section that are formatted as answers


class Histories:
    """Pretraining rows in the wording of prompts. Every item and all reasoning are prediction targets.

    Without options, a row consists of sections of history. Some liked items are formatted as answers, so that
    the model learns to predict an item from more than the directly preceding one. With options, there are
    also prompts followed by the reasoning of `narrate` and the answer. Complete chat turns are left to SFT.
    If a document is too long, the oldest items of its history are dropped.
    """

    def __init__(self, moments: Moments, chat: Chat, words: Wording, narrate: Callable[[RankingRecord], str]):
        """`chat` must use a `title_tokenizer`, whose tokens do not cross the parts of a prompt."""
        self.moments, self.chat, self.words, self.narrate = moments, chat, words, narrate
        self.demographics, self.config = moments.dataset.catalog.demographics, moments.config
        self._encode = functools.lru_cache(maxsize=None)(chat.encode)
        self._rated = functools.lru_cache(maxsize=None)(self._encode_rated)
        opening, close = words.history.split("{history}")
        self._saw, self._close = self._encode(opening), self._encode(close)
        self._order = [chat.end_think, *self._encode(f"\n\n{ORDER}")]

    def __reduce__(self):
        return Histories, (self.moments, self.chat, self.words, self.narrate)

    def row(self, rng: np.random.Generator, length: int, options: int) -> Iterator[WeightedTokens]:
        if options and rng.random() < PROMPTS:
            yield self._prompt(rng, length, options)
            return
        while length >= LEAST_ROOM:
            window = self.moments.window(rng, length)
            document = self._past(window.user, window.rated, length - 1, rng)
            document.add([self.chat.end])
            length -= len(document)
            yield document

    def _prompt(self, rng: np.random.Generator, length: int, options: int) -> WeightedTokens:
        """A prompt without its request, followed by reasoning and answer."""
        c = self.config
        chains = c.chains if rng.random() < WHOLE else int(rng.integers(c.chains + 1))
        shown = {"likes": c.likes, "chains": chains, "history": c.history}
        record = self.moments.record(self.moments.moment(rng), rng, options=options, **shown)
        bare = dataclasses.replace(record, demographics={}, history=[])
        rest = WeightedTokens()
        rest.add(
            self.chat.encode(context_text(bare, self.moments.dataset.catalog, self.words, answer="titles"))
        )
        rest.add(self.chat.encode(self.narrate(record) + "\n"), NARRATED)
        rest.add(self._order)
        rest.add(self._rated(record.truth, self.words.liked), ANSWER)
        rest.add([self.chat.end])
        document = self._past(record.user, record.history, length - len(rest))
        document.extend(rest)
        return document

    def _past(
        self, user: int, history: list[tuple[int, float]], room: int, rng: np.random.Generator | None = None
    ) -> WeightedTokens:
        """The user marker, the user's demographics and the history, within `room` tokens.

        With `rng`, a random subset of the liked items is formatted as answers.
        """
        past, rated = WeightedTokens(), WeightedTokens()
        about = self._encode(self.words.traits(self.demographics[user], self.words.about))
        past.add([self.chat.user, *about])
        room -= len(past) + len(self._saw) + len(self._close)
        for item, rating in reversed(history):
            piece = WeightedTokens()
            if rng is not None and self.words.is_like(rating) and rng.random() < BREAKS:
                piece.add([*self._close, *self._order])
            piece.add(self._rated(item, rating), ITEM)
            room -= len(piece)
            if room < 0:
                break
            piece.extend(rated)
            rated = piece
        if rated.tokens:
            past.add(self._saw)
            past.extend(rated)
            past.add(self._close)
        return past

    def _encode_rated(self, item: int, rating: float) -> list[int]:
        return self.chat.encode(rated_text(item, rating, self.moments.dataset.catalog, self.words))
