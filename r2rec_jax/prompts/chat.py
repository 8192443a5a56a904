"""Turns of the R1-Distill family as token ids, built by hand.

The family's stock chat template drops the reasoning from assistant turns and opens the think block
for the model, so training targets cannot come from it. Markup enters here as ids and only here;
text is stripped of anything that reads like a marker and can never become one.
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
# Around an item's number, in place of its token. `plain` takes the character out of untrusted text.
_ITEM = re.compile("\x1f([0-9]+)\x1f")


def item_token(item: int) -> str:
    """What stands in a prompt's text for the item's own token; nothing that people read."""
    return f"\x1f{item}\x1f"


def without_item_tokens(text: str) -> str:
    return _ITEM.sub("", text)


class Unmeasured:
    """In place of a `Chat` where no tokenizer is at hand: every text has no tokens, so all of it fits."""

    first_item, end_think = None, 0

    def prompt(self, _: str) -> list[int]:
        return []

    def completion(self, *_: str) -> list[int]:
        return []


class Chat:
    """A tokenizer with the family's six markers.

    Attributes `begin`, `end`, `user`, `assistant`, `think`, `end_think` are their token ids; `folder` is
    where the tokenizer was read.
    """

    def __init__(self, folder: str | Path, first_item: int | None = None):
        """Reads `folder/tokenizer.json`; `first_item` is the token of item 0, of a model that has any.

        Raises UserError as `load_tokenizer` does.
        """
        self.folder, self.first_item = Path(folder), first_item
        self.tokenizer = load_tokenizer(folder, MARKERS)
        for name, text in MARKERS.items():
            setattr(self, name, self.tokenizer.token_to_id(text))
        # Other special tokens, <s> or [PAD], may be a title's text: there they are cut as text.
        self.tokenizer.encode_special_tokens = True
        added = {token: one.content for token, one in self.tokenizer.get_added_tokens_decoder().items()}
        added |= {self.tokenizer.token_to_id(text): text for text in MARKERS.values()}
        markup = {k: text for k, text in added.items() if text in MARKERS.values() or MARKUP.search(text)}
        # Whether or not the file calls them special: none is a piece of text.
        self._no_text, self._markup = set(markup), re.compile("|".join(map(re.escape, markup.values())))

    def encode(self, text: str) -> list[int]:
        """Tokens of trusted wording and cleaned data; of items too, where the model has any.

        Raises ValueError if the text holds what `plain` takes out: a marker, or another added token that
        reads like one, or half a surrogate pair.
        """
        if self.first_item is not None and _ITEM.search(text):
            before, item, after = _ITEM.split(text, maxsplit=1)
            return [*self.encode(before), self.first_item + int(item), *self.encode(after)]
        try:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise ValueError(f"text is not Unicode; pass it through plain() first: {text[:80]!r}") from None
        if not self._no_text.isdisjoint(ids) or self._markup.search(text):
            raise ValueError(f"text holds chat markup; pass it through plain() first: {text[:80]!r}")
        return ids

    def conversation(self, messages: list[dict[str, str]]) -> list[int]:
        """Turns from the begin token on, as the family's template renders them.

        Args:
          messages: {'role': 'system' | 'user' | 'assistant', 'content': text}; the system's text, if any,
            comes first and has no marker of its own. An assistant's content is its answer alone: past
            reasoning is not shown to the family.
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
                    raise ValueError(f"message {place} has the role {role!r}; a system's comes first")
        return ids

    def prompt(self, text: str) -> list[int]:
        """A user turn and the opened reasoning of the answer: what a completion continues."""
        turn = self.conversation([{"role": "user", "content": text}])
        return [*turn, self.assistant, self.think, *self.encode("\n")]

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
        return self.text(ids).strip()

    def text(self, ids: list[int]) -> str:
        """With the space around it."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)

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
