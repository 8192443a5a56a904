"""The tokenizer files of a Hugging Face folder, read as transformers 5 reads them, or refused by name.

`tokenizer.json` alone decides how text is cut here. What transformers would take from the files beside it to
cut otherwise, or to end a completion elsewhere, is refused.
"""

from pathlib import Path

import tokenizers

from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.untrusted import parse_json

FILE = "tokenizer.json"
# Classes of transformers 5 that take tokenizer.json as it is; others build a tokenizer of their own from its
# vocabulary. LlamaTokenizer does so as well, unless the file is a byte-level one.
AS_IT_IS = ("TokenizersBackend", "PreTrainedTokenizerFast")
LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast")
# How an added token is found in text.
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
# What must come back as it went in: spaces, case, accents, scripts, digits.
TEXT = "A  Café: 天気の子 🦙\n\n1,000 > 999"


def load_tokenizer(folder: str | Path, markers: dict[str, str]) -> tokenizers.Tokenizer:
    """Reads `folder/tokenizer.json`, whose truncation and padding are switched off, as in transformers.

    Args:
      markers: {name: text} of the added tokens that the chat is built with.

    Raises:
      UserError: an absent or damaged file, one that lacks a marker, one that cuts text otherwise than in
        transformers, or at random, or one with more tokens than the model beside it.
    """
    path = Path(folder) / FILE
    if not path.exists():
        raise UserError(f"no tokenizer at {path}; it belongs in the model folder, beside config.json")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except BaseException as fault:  # the library raises bare Exception, and where its own code panics this
        if not isinstance(fault, Exception) and type(fault).__name__ != "PanicException":
            raise
        raise UserError(
            f"{path} is not a tokenizer ({shown(fault, 300)}); fetch the model folder again"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in markers.values():
        if tokenizer.token_to_id(text) is None:
            raise UserError(f"{path} has no token {text!r}; use a tokenizer of the R1-Distill family")
    if dropout := getattr(tokenizer.model, "dropout", None):
        raise UserError(f"{path}: model.dropout={dropout:g} cuts a text at random: set it to null")
    _check_markers(path, tokenizer, markers)
    _check_config(Path(folder) / "tokenizer_config.json", tokenizer, markers)
    template = Path(folder) / "chat_template.jinja"
    if template.exists():
        _check_template(template, template.read_text(encoding="utf-8", errors="replace"), markers)
    _check_size(Path(folder) / "config.json", path, tokenizer)
    for name in ("config.json", "generation_config.json"):
        _check_end(Path(folder) / name, tokenizer.token_to_id(markers["end"]))
    return tokenizer


def _check_markers(path: Path, tokenizer: tokenizers.Tokenizer, markers: dict[str, str]) -> None:
    """A turn is encoded piece by piece here and as a whole in transformers: both must be the same."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    for text in markers.values():
        for before, after in ((" a \n", "\n b "), ("a", "b")):
            whole = [*ids(before), tokenizer.token_to_id(text), *ids(after)]
            if ids(before + text + after) != whole:
                raise UserError(
                    f"{path}: the token {text!r} changes the text beside it: its lstrip, rstrip, single_word "
                    "and normalized must be false, and no normalizer or pre_tokenizer may add a prefix"
                )
    back = tokenizer.decode(ids(TEXT), skip_special_tokens=False)
    if back.strip() != TEXT:
        raise UserError(
            f"{path} loses text: {TEXT!r} comes back as {shown(repr(back), 120)}; use a tokenizer that keeps "
            "case, spaces and every character, such as a byte-level one"
        )


def _check_config(path: Path, tokenizer: tokenizers.Tokenizer, markers: dict[str, str]) -> None:
    """What transformers reads in tokenizer_config.json besides how to pad and which tokens are special."""
    raw = _read(path)
    kind = raw.get("tokenizer_class")
    if kind not in (None, *AS_IT_IS) and not (kind in LLAMA and _is_byte_level(tokenizer)):
        raise UserError(
            f"{path}: tokenizer_class={shown(repr(kind), 80)} is not supported: transformers cuts text with "
            f"that class instead of {FILE}; set it to {AS_IT_IS[0]!r} if {FILE} is right"
        )
    if raw.get("split_special_tokens"):
        raise UserError(
            f"{path}: split_special_tokens=true would cut the chat's markers into pieces: set it to false"
        )
    found = tokenizer.get_added_tokens_decoder()
    added = raw.get("added_tokens_decoder") or {}
    for number, token in added.items() if isinstance(added, dict) else ():
        text = token.get("content") if isinstance(token, dict) else None
        same = isinstance(text, str) and str(tokenizer.token_to_id(text)) == number
        if same and text in markers.values() and int(number) in found:
            same = all(token.get(flag, False) == getattr(found[int(number)], flag) for flag in FLAGS)
        if not same:
            what = shown(f"{text!r} as {number}", 120)
            raise UserError(
                f"{path}: added_tokens_decoder has {what}, and {FILE} has not, or with other flags: fetch "
                "both files of one model"
            )
    if template := raw.get("chat_template"):
        _check_template(path, str(template), markers)


def _is_byte_level(tokenizer: tokenizers.Tokenizer) -> bool:
    return "ByteLevel" in str(tokenizer.pre_tokenizer)


def _check_template(path: Path, template: str, markers: dict[str, str]) -> None:
    """Turns are built by hand, as the family's own template builds them; another one's are not."""
    for name in ("user", "assistant"):
        if markers[name] not in template:
            raise UserError(
                f"{path}: the chat template has no {markers[name]!r}, so the model was trained with other "
                "turns; use a model of the R1-Distill family"
            )


def _check_size(path: Path, file: Path, tokenizer: tokenizers.Tokenizer) -> None:
    """A token past the embedding's end would silently read another row of it."""
    size, last = _read(path).get("vocab_size"), max(tokenizer.get_vocab().values())
    if isinstance(size, int) and last >= size:
        token = shown(repr(tokenizer.id_to_token(last)), 80)
        raise UserError(
            f"{file} has {token} as {last}, and {path} vocab_size={size}: fetch both files of one model"
        )


def _check_end(path: Path, end: int) -> None:
    """A completion ends at `end` alone, where transformers ends it at any of a list."""
    ends = _read(path).get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    if other := [one for one in ends if one is not None and one != end]:
        raise UserError(
            f"{path}: eos_token_id has {shown(other, 80)}, and completions end at {end} alone here: set it "
            f"to {end} if the model ends its answers so"
        )


def _read(path: Path) -> dict:
    """{} where there is none. config.json itself is checked where the model is read."""
    try:
        raw = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise UserError(f"{path} is not JSON ({shown(fault, 200)}); fetch the model folder again") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} holds no JSON object; fetch the model folder again")
    return raw
