"""Makes small tokenizers that encode any text. The first token ids are the R1-Distill family's markers."""

import dataclasses
import re
from collections.abc import Iterable, Iterator

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.answer_parser import ORDER
from r2rec_jax.prompts.chat import MARKERS
from r2rec_jax.prompts.wording import Wording
from r2rec_jax.runtime.plain_text import clean

_FIELD = re.compile(r"\{[^}]*\}")
_WORD = re.compile(r" ?[^ \n]+\n?|\n")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE tokenizer on `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in MARKERS.values()],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def title_tokenizer(catalog: Catalog, wording: Wording) -> Tokenizer:
    """A tokenizer with one token per title (after a space) and per word of `wording`, and bytes for the rest.

    The names, traits, genres and ratings of `wording` also have one token each. All pieces have equal
    probability, so Unigram's best path encodes a text with the fewest tokens. No piece continues after a line
    break, and only titles, traits and genres contain spaces inside.
    """
    names = {*wording.peers, *map(str, range(1, 21)), *(f"{half / 2:g}" for half in range(1, 11))}
    names |= set(map(wording.rating, wording.scale.values()))
    names |= {clean(genre) for genres in catalog.genres for genre in genres}
    names |= {clean(value) for traits in catalog.demographics for value in traits.values()}
    words = {word for text in (*_texts(wording), f"\n\n{ORDER}", " >") for word in _WORD.findall(text)}
    titles = {wording.title(catalog, item) for item in range(len(catalog.title))}
    spaced = {f" {name}" for name in titles | names}
    pieces = dict.fromkeys([*MARKERS.values(), *(f"<0x{byte:02X}>" for byte in range(256))])
    pieces |= dict.fromkeys(sorted((words | names | spaced) - {""}))
    vocabulary = [(piece, -1.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=len(MARKERS), byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in MARKERS.values()]
    )
    return tokenizer


def _texts(value) -> Iterator[str]:
    """Yields the fixed texts of templates, without their fields."""
    if isinstance(value, str):
        yield from (part.rstrip(" ") for part in _FIELD.split(value))
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, tuple):
        for part in value:
            yield from _texts(part)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name != "scale":
                yield from _texts(getattr(value, field.name))
