"""Loads the tokenizer of a Hugging Face folder, and rejects folders that transformers 5 would read otherwise.

Here tokenization depends on `tokenizer.json` only. transformers also reads the files next to it. If those
change the tokenization or the end-of-completion tokens, loading fails with a UserError.
"""

from pathlib import Path

import tokenizers

from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.untrusted import parse_json

FILE = "tokenizer.json"
# Classes of transformers 5 that use tokenizer.json unchanged. Other classes build their own tokenizer from
# its vocabulary. LlamaTokenizer does so too, unless the file is byte-level.
GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast")
# Flags that control how an added token is matched in text.
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
# Round-trip test text: spaces, case, accents, scripts, digits.
TEXT = "A  Café: 天気の子 🦙\n\n1,000 > 999"


def load_tokenizer(folder: str | Path, markers: dict[str, str]) -> tokenizers.Tokenizer:
    """Loads `folder/tokenizer.json` with truncation and padding disabled, as in transformers.

    Args:
      markers: {name: text} of the added tokens that chat turns use.

    Raises:
      UserError: the file is missing or damaged, lacks a marker, tokenizes differently from transformers or at
        random, or has more tokens than the model in the same folder.
    """
    path = Path(folder) / FILE
    if not path.exists():
        raise UserError(f"no tokenizer at {path}; it belongs in the model folder, beside config.json")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except BaseException as fault:  # the library raises Exception, or PanicException if its Rust code panics
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
        raise UserError(f"{path}: model.dropout={dropout:g} tokenizes text at random: set it to null")
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
    """Checks that encoding a turn in parts, as here, equals encoding it as a whole, as in transformers."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    for text in markers.values():
        for before, after in ((" a \n", "\n b "), ("a", "b")):
            whole = [*ids(before), tokenizer.token_to_id(text), *ids(after)]
            if ids(before + text + after) != whole:
                raise UserError(
                    f"{path}: the token {text!r} changes adjacent text: its lstrip, rstrip, single_word "
                    "and normalized must be false, and no normalizer or pre_tokenizer may add a prefix"
                )
    back = tokenizer.decode(ids(TEXT), skip_special_tokens=False)
    if back.strip() != TEXT:
        raise UserError(
            f"{path} loses text: {TEXT!r} decodes to {shown(repr(back), 120)}; use a tokenizer that keeps "
            "case, spaces and every character, such as a byte-level one"
        )


def _check_config(path: Path, tokenizer: tokenizers.Tokenizer, markers: dict[str, str]) -> None:
    """Checks the fields of tokenizer_config.json that change tokenization in transformers."""
    raw = _read(path)
    kind = raw.get("tokenizer_class")
    if kind not in (None, *GENERIC) and not (kind in LLAMA and _is_byte_level(tokenizer)):
        raise UserError(
            f"{path}: tokenizer_class={shown(repr(kind), 80)} is not supported: transformers tokenizes with "
            f"that class instead of {FILE}; set it to {GENERIC[0]!r} if {FILE} is right"
        )
    if raw.get("split_special_tokens"):
        raise UserError(
            f"{path}: split_special_tokens=true would split the chat markers into pieces: set it to false"
        )
    expected = tokenizer.get_added_tokens_decoder()
    added = raw.get("added_tokens_decoder") or {}
    for number, token in added.items() if isinstance(added, dict) else ():
        text = token.get("content") if isinstance(token, dict) else None
        same = isinstance(text, str) and str(tokenizer.token_to_id(text)) == number
        if same and text in markers.values() and int(number) in expected:
            same = all(token.get(flag, False) == getattr(expected[int(number)], flag) for flag in FLAGS)
        if not same:
            what = shown(f"{text!r} as {number}", 120)
            raise UserError(
                f"{path}: added_tokens_decoder has {what}, but {FILE} lacks it or has other flags: fetch "
                "both files of one model"
            )
    if template := raw.get("chat_template"):
        _check_template(path, str(template), markers)


def _is_byte_level(tokenizer: tokenizers.Tokenizer) -> bool:
    return "ByteLevel" in str(tokenizer.pre_tokenizer)


def _check_template(path: Path, template: str, markers: dict[str, str]) -> None:
    """Checks that the chat template uses the markers of the R1-Distill family, as `Chat` does."""
    for name in ("user", "assistant"):
        if markers[name] not in template:
            raise UserError(
                f"{path}: the chat template has no {markers[name]!r}, so the model was trained with another "
                "chat format; use a model of the R1-Distill family"
            )


def _check_size(path: Path, file: Path, tokenizer: tokenizers.Tokenizer) -> None:
    """Checks that token ids are below vocab_size. A larger id would silently read another embedding row."""
    size, last = _read(path).get("vocab_size"), max(tokenizer.get_vocab().values())
    if isinstance(size, int) and last >= size:
        token = shown(repr(tokenizer.id_to_token(last)), 80)
        raise UserError(
            f"{file} has {token} as {last}, but {path} has vocab_size={size}: fetch both files of one model"
        )


def _check_end(path: Path, end: int) -> None:
    """Checks that `end` is the only end-of-sequence token. transformers would stop at any listed token."""
    ends = _read(path).get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    if other := [token for token in ends if token is not None and token != end]:
        raise UserError(
            f"{path}: eos_token_id has {shown(other, 80)}, but completions end only at {end} here: set it "
            f"to {end} if the model ends its answers with it"
        )


def _read(path: Path) -> dict:
    """Reads a JSON object, {} if the file is missing. The model loader checks config.json itself."""
    try:
        raw = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise UserError(f"{path} is not JSON ({shown(fault, 200)}); fetch the model folder again") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object; fetch the model folder again")
    return raw
