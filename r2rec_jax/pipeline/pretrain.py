"""Packed rows of pretraining text as a random-access source."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.corpus import Corpus
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.ranking import RankingRecord, rated_text, situation
from r2rec_jax.prompts.wording import LIKED, Wording

# Tokens, and how much the loss of each counts: 0 where there is nothing to learn.
Weighed = tuple[list[int], list[float]]
ANSWER = 5.0  # what a moment's answer counts: all the rest of its query is there for this one token
NARRATED = 0.5  # share of queries with a narration, and what each of its tokens counts
PER_ITEM = 1.6  # tokens of a rated item: a title and, of some, a word for a low rating
LEAST_ROOM = 24  # tokens of a row that are left empty rather than filled with a shorter stretch of history


class Text(Protocol):
    def row(self, rng: np.random.Generator, length: int, options: int) -> Iterator[Weighed]:
        """Documents that have room in a row of `length` tokens, with lists of up to `options` items."""


class PretrainRows:
    """Row k, {'prompt', 'response', 'mask'}: whole documents, drawn from (seed, k).

    `curriculum` lists (fraction of the run, row length in tokens, most options a document offers),
    ascending.
    """

    def __init__(self, text: Text, begin: int, *, rows: int, seed: int, curriculum):
        """`begin` is the token before every row."""
        self.text, self.begin = text, begin
        self.rows, self.seed, self.curriculum = rows, seed, curriculum

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, k])
        length, options = next(stage[1:] for stage in self.curriculum if k <= stage[0] * self.rows)
        tokens, weights = [], []
        for said, weight in self.text.row(rng, length, options):
            tokens += said
            weights += weight
        return {
            "prompt": np.array([self.begin], np.int32),
            "response": np.array(tokens, np.int32),
            "mask": np.array(weights, np.float32),
        }


class Documents:
    """Documents of a corpus. One that does not fit is left out; a document's context carries no loss."""

    def __init__(self, corpus: Corpus, chat: Chat):
        self.corpus, self.chat = corpus, chat

    def row(self, rng: np.random.Generator, length: int, options: int) -> Iterator[Weighed]:
        left_out = 0
        while left_out < 3:
            context, text = self._tokens(self.corpus.document(rng, options))
            if len(context) + len(text) > length:
                left_out += 1
                continue
            length -= len(context) + len(text)
            yield context + text, [0.0] * len(context) + [1.0] * len(text)

    def _tokens(self, document) -> tuple[list[int], list[int]]:
        chat = self.chat
        if document.reasoning is None:
            return chat.encode(document.context), [*chat.encode(document.text), chat.end]
        return chat.prompt(document.context), chat.completion(document.reasoning, document.text)


class Histories:
    """Moments in the words of prompts: without options stretches of history, every item of which is to be
    foretold; with options what a prompt tells before it asks, at times what `narrate` says of it, and what
    its user saw next.

    In the latter the history is learnt as well. To be asked, and to reason and answer in form, is left to
    SFT. What has no room loses the oldest of its history.
    """

    def __init__(self, moments: Moments, chat: Chat, words: Wording, narrate: Callable[[RankingRecord], str]):
        """`chat`: of a tokenizer for which pieces of a prompt are tokens of their own, `title_tokenizer`."""
        self.moments, self.chat, self.words, self.narrate = moments, chat, words, narrate
        self.catalog = moments.dataset.catalog
        self._encode = functools.lru_cache(maxsize=None)(chat.encode)
        self._rated = functools.lru_cache(maxsize=None)(self._encode_rated)

    def __reduce__(self):
        return Histories, (self.moments, self.chat, self.words, self.narrate)

    def row(self, rng: np.random.Generator, length: int, options: int) -> Iterator[Weighed]:
        if options:
            yield self._query(rng, length, options)
            return
        while length >= LEAST_ROOM:
            window = self.moments.window(rng, int(length / PER_ITEM))
            tokens, weights = self._past(self.catalog.demographics[window.user], window.rated, length - 1)
            yield [*tokens, self.chat.end], [*weights, 0.0]
            length -= len(tokens) + 1

    def _query(self, rng: np.random.Generator, length: int, options: int) -> Weighed:
        record = self.moments.record(rng, options)
        rest = situation(
            dataclasses.replace(record, demographics={}, history=[]),
            self.catalog,
            self.words,
            answer="titles",
        )
        told = self.narrate(record) + "\n" if rng.random() < NARRATED else ""
        opening, close = self._frame()
        parts = [
            (self.chat.encode(rest), 0.0),
            (self.chat.encode(told), NARRATED),
            (opening, 0.0),
            (self._rated(record.truth, LIKED), ANSWER),
            ([*close, self.chat.end], 0.0),
        ]
        room = length - sum(len(part) for part, _ in parts)
        tokens, weights = self._past(record.demographics, record.history, room)
        for part, weight in parts:
            tokens, weights = tokens + part, weights + [weight] * len(part)
        return tokens, weights

    def _past(self, demographics: dict[str, str], history: list[tuple[int, float]], room: int) -> Weighed:
        """From the user marker on, within `room` tokens."""
        about = [self.chat.user, *self._encode(self.words.traits(demographics, self.words.about))]
        opening, close = self._frame()
        room -= len(about) + len(opening) + len(close)
        rated = []
        for one in reversed(history):
            room -= len(piece := self._rated(*one))
            if room < 0:
                break
            rated = [*piece, *rated]
        if not rated:
            return about, [0.0] * len(about)
        tokens = [*about, *opening, *rated, *close]
        weights = [*[0.0] * len(about + opening), *[1.0] * len(rated), *[0.0] * len(close)]
        return tokens, weights

    def _frame(self) -> tuple[list[int], list[int]]:
        """What stands before and after the items of a history."""
        opening, close = self.words.history.split("{history}")
        return self._encode(opening), self._encode(close)

    def _encode_rated(self, item: int, rating: float) -> list[int]:
        return self.chat.encode(rated_text(item, rating, self.catalog, self.words))
