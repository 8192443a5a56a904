"""Packed rows of pretraining text as a random-access source."""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.corpus import Corpus, Document


@dataclasses.dataclass
class Weighed:
    """Tokens, and how much the loss of each counts: 0 where there is nothing to learn."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    weights: list[float] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, tokens: list[int], weight: float = 0.0) -> None:
        self.tokens += tokens
        self.weights += [weight] * len(tokens)

    def extend(self, more: "Weighed") -> None:
        self.tokens += more.tokens
        self.weights += more.weights


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
        row = Weighed()
        for document in self.text.row(rng, length, options):
            row.extend(document)
        return {
            "prompt": np.array([self.begin], np.int32),
            "response": np.array(row.tokens, np.int32),
            "mask": np.array(row.weights, np.float32),
        }


class Documents:
    """Documents of a corpus. One that does not fit is left out; a document's context carries no loss."""

    def __init__(self, corpus: Corpus, chat: Chat):
        self.corpus, self.chat = corpus, chat

    def row(self, rng: np.random.Generator, length: int, options: int) -> Iterator[Weighed]:
        left_out = 0
        while left_out < 3:
            said = self._weighed(self.corpus.document(rng, options))
            if len(said) > length:
                left_out += 1
                continue
            length -= len(said)
            yield said

    def _weighed(self, document: Document) -> Weighed:
        chat, said = self.chat, Weighed()
        if document.reasoning is None:
            said.add(chat.encode(document.context))
            said.add([*chat.encode(document.text), chat.end], 1.0)
        else:
            said.add(chat.prompt(document.context))
            said.add(chat.completion(document.reasoning, document.text), 1.0)
        return said
