"""Packed rows of pretraining text as a random-access source."""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.corpus import Corpus, Document


@dataclasses.dataclass
class WeightedTokens:
    """Tokens and the loss weight of each. Tokens with weight 0 have no loss."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    weights: list[float] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, tokens: list[int], weight: float = 0.0) -> None:
        self.tokens += tokens
        self.weights += [weight] * len(tokens)

    def extend(self, more: "WeightedTokens") -> None:
        self.tokens += more.tokens
        self.weights += more.weights


class Text(Protocol):
    def row(self, rng: np.random.Generator, length: int, options: int) -> Iterator[WeightedTokens]:
        """Yields documents that together fit in `length` tokens, with lists of up to `options` items."""


class PretrainRows:
    """Row k, {'prompt', 'response', 'mask'}, consists of complete documents drawn from (seed, k).

    `curriculum` lists (fraction of the run, row length in tokens, largest number of options), ascending.
    """

    def __init__(self, text: Text, begin: int, *, rows: int, seed: int, curriculum):
        """`begin` is the id of the begin token, the prompt of every row."""
        self.text, self.begin = text, begin
        self.rows, self.seed, self.curriculum = rows, seed, curriculum

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, k])
        length, options = next(stage[1:] for stage in self.curriculum if k <= stage[0] * self.rows)
        row = WeightedTokens()
        for document in self.text.row(rng, length, options):
            row.extend(document)
        return {
            "prompt": np.array([self.begin], np.int32),
            "response": np.array(row.tokens, np.int32),
            "mask": np.array(row.weights, np.float32),
        }


class Documents:
    """Tokenized documents of a corpus. The context of a document has no loss.

    Documents that do not fit are skipped. The row ends after three of them.
    """

    def __init__(self, corpus: Corpus, chat: Chat):
        self.corpus, self.chat = corpus, chat

    def row(self, rng: np.random.Generator, length: int, options: int) -> Iterator[WeightedTokens]:
        skipped = 0
        while skipped < 3:
            tokens = self._encode(self.corpus.document(rng, options))
            if len(tokens) > length:
                skipped += 1
                continue
            length -= len(tokens)
            yield tokens

    def _encode(self, document: Document) -> WeightedTokens:
        chat, tokens = self.chat, WeightedTokens()
        if document.reasoning is None:
            tokens.add(chat.encode(document.context))
            tokens.add([*chat.encode(document.text), chat.end], 1.0)
        else:
            tokens.add(chat.prompt(document.context))
            tokens.add(chat.completion(document.reasoning, document.text), 1.0)
        return tokens
