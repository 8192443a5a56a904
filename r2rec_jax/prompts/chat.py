"""Builds the chat turns of the R1-Distill family as token ids.

The family's chat template drops the reasoning from assistant turns and opens the think block, so it cannot
produce training targets. Only this module adds markers, as token ids. Text never becomes a marker: `encode`
rejects text that reads like one.
"""

import re
from pathlib import Path

from r2rec_jax.prompts.tokenizer_file import load_tokenizer
from r2rec_jax.runtime.plain_text import MARKUP

MARKERS = {
    "begin": "<｜begin▁of▁sentence｜>",
    "end": "<｜end▁of▁sentence｜>",
    "user": "<｜User｜>",
    "assistant": "<｜Assistant｜>",
    "think": "<think>",
    "end_think": "</think>",
}
# Placeholder of an item token: the item's number between two separators. `plain` removes the separator from
# untrusted text.
_ITEM = re.compile("\x1f([0-9]+)\x1f")


def item_token(item: int) -> str:
    """The placeholder of the item's own token in a prompt's text. `Chat.encode` replaces it by the token."""
    return f"\x1f{item}\x1f"


def without_item_tokens(text: str) -> str:
    """`text` without item placeholders."""
    return _ITEM.sub("", text)


class Unmeasured:
    """Replaces `Chat` if there is no tokenizer: every text has no tokens, so every prompt fits."""

    first_item, end_think = None, 0

    def prompt(self, _: str) -> list[int]:
        return []

    def completion(self, *_: str) -> list[int]:
        return []


class Chat:
    """A tokenizer with the family's six markers.

    The attributes `begin`, `end`, `user`, `assistant`, `think` and `end_think` are their token ids. `folder`
    is the folder of the tokenizer.
    """

    def __init__(self, folder: str | Path, first_item: int | None = None):
        """Reads `folder/tokenizer.json`. Raises UserError as `load_tokenizer` does.

        first_item: the token id of item 0, or None for a model without item tokens.
        """
        self.folder, self.first_item = Path(folder), first_item
        self.tokenizer = load_tokenizer(folder, MARKERS)
        for name, text in MARKERS.items():
            setattr(self, name, self.tokenizer.token_to_id(text))
        # A title may contain the text of other special tokens, <s> or [PAD], so these are encoded as text.
        self.tokenizer.encode_special_tokens = True
        added = {k: token.content for k, token in self.tokenizer.get_added_tokens_decoder().items()}
        added |= {self.tokenizer.token_to_id(text): text for text in MARKERS.values()}
        markup = {k: text for k, text in added.items() if text in MARKERS.values() or MARKUP.search(text)}
        # These tokens never occur in text, even if the file does not declare them as special.
        self._markup_ids, self._markup = set(markup), re.compile("|".join(map(re.escape, markup.values())))

    def encode(self, text: str) -> list[int]:
        """Token ids of wording and cleaned data. Item placeholders become item tokens if the model has them.

        Raises:
          ValueError: the text contains something that `plain` removes: a marker, another added token that
            reads like one, or half a surrogate pair.
        """
        if self.first_item is not None and _ITEM.search(text):
            before, item, after = _ITEM.split(text, maxsplit=1)
            return [*self.encode(before), self.first_item + int(item), *self.encode(after)]
        try:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise ValueError(f"text is not Unicode; pass it through plain() first: {text[:80]!r}") from None
        if not self._markup_ids.isdisjoint(ids) or self._markup.search(text):
            raise ValueError(f"text contains chat markup; pass it through plain() first: {text[:80]!r}")
        return ids

    def conversation(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a conversation, including the begin token, as the family's template renders it.

        Args:
          messages: {'role': 'system' | 'user' | 'assistant', 'content': text}. A system message must be the
            first and has no marker. The content of an assistant message is the answer without its reasoning,
            since the family does not see past reasoning.

        Raises:
          ValueError: another role, or a system message that is not the first.
        """
        ids = [self.begin]
        for place, message in enumerate(messages):
            content = self.encode(message["content"])
            match message["role"]:
                case "system" if place == 0:
                    ids += content
                case "user":
                    ids += [self.user, *content]
                case "assistant":
                    ids += [self.assistant, *content, self.end]
                case role:
                    raise ValueError(f"message {place} has the role {role!r}; a system message must be first")
        return ids

    def prompt(self, text: str) -> list[int]:
        """A user turn and the opened think block of the assistant's turn, which a completion continues."""
        turn = self.conversation([{"role": "user", "content": text}])
        return [*turn, self.assistant, self.think, *self.encode("\n")]

    def completion(self, reasoning: str, answer: str) -> list[int]:
        """The rest of the assistant's turn: reasoning, end of the think block, answer, end token."""
        closed = [*self.encode(reasoning + "\n"), self.end_think]
        return [*closed, *self.encode("\n\n" + answer), self.end]

    def split(self, completion: list[int]) -> tuple[str, str | None]:
        """(reasoning, answer) of a completion. The answer is None if the think block is not closed."""
        if self.end in completion:
            completion = completion[: completion.index(self.end)]
        if self.end_think not in completion:
            return self.decode(completion), None
        cut = completion.index(self.end_think)
        return self.decode(completion[:cut]), self.decode(completion[cut + 1 :])

    def decode(self, ids: list[int]) -> str:
        """The text of `ids` without surrounding whitespace."""
        return self.text(ids).strip()

    def text(self, ids: list[int]) -> str:
        """The text of `ids` with surrounding whitespace."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def to_transformers(self):
        """The tokenizer as a transformers tokenizer. The padding token is the end token, as in R1."""
        from transformers import PreTrainedTokenizerFast  # slow to import, needed for exports only

        return PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer,
            bos_token=MARKERS["begin"],
            eos_token=MARKERS["end"],
            pad_token=MARKERS["end"],
            clean_up_tokenization_spaces=False,
        )
