"""Packed rows of pretraining text as a random-access source."""

import numpy as np

from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.corpus import Corpus, Document


class PretrainRows:
    """Row k of the corpus, {'prompt', 'response', 'mask'}: whole documents drawn from (seed, k).

    `curriculum` lists (fraction of the run, row length in tokens, most options a document offers),
    ascending. A document that no longer fits its row is left out; a document's context carries no loss.
    """

    def __init__(self, corpus: Corpus, chat: Chat, *, rows: int, seed: int, curriculum):
        self.corpus, self.chat = corpus, chat
        self.rows, self.seed, self.curriculum = rows, seed, curriculum

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, k])
        length, options = next(stage[1:] for stage in self.curriculum if k <= stage[0] * self.rows)
        tokens, mask, left_out = [], [], 0
        while left_out < 3:
            context, text = self._tokens(self.corpus.document(rng, options))
            if len(tokens) + len(context) + len(text) > length:
                left_out += 1
                continue
            tokens += context + text
            mask += [0] * len(context) + [1] * len(text)
        return {
            "prompt": np.array([self.chat.begin], np.int32),
            "response": np.array(tokens, np.int32),
            "mask": np.array(mask, np.float32),
        }

    def _tokens(self, document: Document) -> tuple[list[int], list[int]]:
        if document.reasoning is None:
            return self.chat.encode(document.context), [
                *self.chat.encode(document.text),
                self.chat.end,
            ]
        return self.chat.prompt(document.context), self.chat.completion(document.reasoning, document.text)
