"""Turns of the R1-Distill family as token ids, built by hand.

The family's stock chat template drops the reasoning from assistant turns and opens the think block
for the model, so training targets cannot come from it. Markup enters here as ids and only here;
text is stripped of anything that reads like a marker and can never become one.
"""

import re
from pathlib import Path

import tokenizers

from r2rec_jax.runtime.errors import UserError

MARKERS = {
    "begin": "<｜begin▁of▁sentence｜>",
    "end": "<｜end▁of▁sentence｜>",
    "user": "<｜User｜>",
    "assistant": "<｜Assistant｜>",
    "think": "<think>",
    "end_think": "</think>",
}
_MARKUP = re.compile(r"<\s*/?\s*think\s*>|<[|｜][^<>\n]{0,40}[|｜]>", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f​-‏‪-‮⁠-⁯﻿]+")


def plain(text: str) -> str:
    """Untrusted text (a title, a name) as one line without markup, control or direction marks."""
    previous = None
    while previous != text:  # removing one marker may join the halves of another
        previous = text
        text = _MARKUP.sub("", text)
    return " ".join(_CONTROL.sub(" ", text).split())


class Chat:
    """A tokenizer with the family's six markers.

    Attributes `begin`, `end`, `user`, `assistant`, `think`, `end_think` are their token ids.
    """

    def __init__(self, folder: str | Path):
        """Reads `folder/tokenizer.json`; raises UserError if absent, damaged or without a marker."""
        path = Path(folder) / "tokenizer.json"
        if not path.exists():
            raise UserError(f"no tokenizer at {path}; it belongs in the model folder, beside config.json")
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as fault:  # the library raises bare Exception
            raise UserError(f"{path} is not a tokenizer ({fault}); fetch the model folder again") from None
        for name, text in MARKERS.items():
            token = self.tokenizer.token_to_id(text)
            if token is None:
                raise UserError(f"{path} has no token {text!r}; use a tokenizer of the R1-Distill family")
            setattr(self, name, token)
        self._marker_ids = {getattr(self, name) for name in MARKERS}

    def encode(self, text: str) -> list[int]:
        """Tokens of trusted wording and cleaned data; raises ValueError if a marker slipped through."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if not self._marker_ids.isdisjoint(ids):
            raise ValueError(f"text holds chat markup; pass it through plain() first: {text[:80]!r}")
        return ids

    def prompt(self, text: str) -> list[int]:
        """A user turn and the opened reasoning of the answer: what a completion continues."""
        turn = [self.begin, self.user, *self.encode(text), self.assistant, self.think]
        return turn + self.encode("\n")

    def completion(self, reasoning: str, answer: str) -> list[int]:
        """The rest of the assistant's turn, think block kept, closed by the end token."""
        closed = [*self.encode(reasoning + "\n"), self.end_think]
        return [*closed, *self.encode("\n\n" + answer), self.end]

    def split(self, completion: list[int]) -> tuple[str, str | None]:
        """(reasoning, answer) of a sampled completion; answer None if the reasoning never closed."""
        if self.end in completion:
            completion = completion[: completion.index(self.end)]
        if self.end_think not in completion:
            return self.decode(completion), None
        cut = completion.index(self.end_think)
        return self.decode(completion[:cut]), self.decode(completion[cut + 1 :])

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False).strip()

    def to_transformers(self):
        """The same tokenizer as transformers saves and loads it; it pads with its end token, as R1 does."""
        from transformers import PreTrainedTokenizerFast  # slow to import, needed for exports only

        return PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer,
            bos_token=MARKERS["begin"],
            eos_token=MARKERS["end"],
            pad_token=MARKERS["end"],
            clean_up_tokenization_spaces=False,
        )
