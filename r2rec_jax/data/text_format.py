"""How a text table is written: separator, header, encoding and quotes, detected or set.

What is detected is logged, so that a wrong guess can be seen and set right by the fields of `data.table`.
"""

import codecs
import csv
import dataclasses
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from r2rec_jax.runtime.errors import UserError

SUFFIXES = (
    *(".csv", ".tsv", ".tab", ".psv", ".txt", ".dat", ".data"),
    *(".inter", ".item", ".user"),  # RecBole's
)
SEPARATORS = (",", "\t", ";", "|", "::", " ")
USUAL = dict.fromkeys((".tsv", ".tab", ".inter", ".item", ".user", ".data"), "\t") | {".psv": "|"}
SAMPLE = 1 << 20  # bytes that are looked at for separator and header
LINES = 100
BLOCK = 1 << 22
NO_QUOTE = "none"

_TYPE = re.compile(r":(?:token|float)(?:_seq)?$")  # RecBole's headers are NAME:TYPE
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1a"))
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_BOMS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclasses.dataclass(frozen=True)
class TextForm:
    """separator: up to four characters. header: "yes" or "no". encoding: a name that Python knows.
    quote: a quotation mark, or "none". What is "" is detected.
    """

    separator: str = ""
    header: str = ""
    encoding: str = ""
    quote: str = ""

    def __post_init__(self):
        if self.header not in ("", "yes", "no"):
            raise UserError(f"data.table.header={self.header!r}: use yes or no")
        if len(self.separator) > 4 or set(self.separator) & set("\r\n"):
            raise UserError(f"data.table.separator={self.separator!r}: use one to four characters")
        if self.quote not in ("", '"', "'", NO_QUOTE):
            raise UserError(f"data.table.quote={self.quote!r}: use \", ' or {NO_QUOTE}")
        try:
            codecs.lookup(self.encoding or "utf-8")
        except (LookupError, ValueError):
            raise UserError(f"data.table.encoding={self.encoding!r}: Python knows no such one") from None

    def __str__(self) -> str:
        quote = self.quote if self.quote == NO_QUOTE else repr(self.quote)
        return f"separator {self.separator!r}, header {self.header}, encoding {self.encoding}, quotes {quote}"


STRICT_CSV = TextForm(",", "yes", "utf-8", '"')


def detect(path: Path, form: TextForm, wanted: list[str]) -> tuple[TextForm, list[str], list[str]]:
    """`form` with nothing left open, the names of the columns (their places, from "1", without a header),
    and the first line as it stands there.

    `wanted`: the columns that are to be read; the separator that finds them is the right one.

    Raises:
      UserError: a file that cannot be read as text.
    """
    form = dataclasses.replace(form, encoding=form.encoding or _encoding(path))
    sample = _sample(path, form.encoding)
    usual = USUAL.get(text_suffix(path), ",")
    separators = dict.fromkeys((form.separator,) if form.separator else (usual, *SEPARATORS))
    # A separator that finds the columns in lines of one length, else one that finds them, else the usual.
    tried = [_try(path, sample, form, separator, wanted) for separator in separators]
    (found, _), form, rows = max(tried, key=lambda one: one[0])
    if not rows:
        raise UserError(f"{path}:1: no readable first line: fetch it again")
    names = _names(rows[0], wanted)
    if not found and not form.header and len(names) > 1 < len(rows) and not looks_like_header(rows):
        raise UserError(
            f"{path}:1: no column {wanted[0]!r} and no header: name columns by place, as 1 for the first"
        )
    header = form.header or _has_header(rows, names, wanted)
    if header == "no":
        names = [str(k + 1) for k in range(len(rows[0]))]
    return dataclasses.replace(form, header=header), names, rows[0]


def text_suffix(path: Path) -> str:
    """The suffix that says what kind of file it is, in small letters: ".csv" of Log.CSV.gz."""
    return next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")


def as_utf8(path: Path, form: TextForm, folder: Path) -> Path:
    """The file itself if it is in UTF-8, else a copy of it in `folder` that is."""
    if codecs.lookup(form.encoding).name == "utf-8":
        return path
    converted = folder / f"{path.name.removesuffix('.gz')}.utf8"
    with open(converted, "wb") as out:
        for text in _decoded(path, form.encoding):
            out.write(text.encode("utf-8"))
    return converted


def begins_with(path: Path, start: bytes) -> bool:
    """Whether the first that is no blank is `start`."""
    return next(_blocks(path), b"").lstrip(codecs.BOM_UTF8 + b" \t\r\n").startswith(start)


def _open(path: Path):
    return gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with _open(path) as file:
            while block := file.read(BLOCK):
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): it is truncated; fetch it again") from error


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    decoder, done = codecs.getincrementaldecoder(encoding)("strict"), 0
    try:
        for block in _blocks(path):
            yield decoder.decode(block)
            done += len(block)
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        where = done + getattr(error, "start", 0)
        raise UserError(
            f"{path} is not in {encoding} (about byte {where}): correct it or set data.table.encoding"
        ) from error


def _encoding(path: Path) -> str:
    """UTF-8 unless a byte order mark says otherwise, or no letter beyond ASCII is written in it."""
    decoder, done, letters, legacy = codecs.getincrementaldecoder("utf-8")("strict"), 0, False, False
    for block in _blocks(path):
        if not done:
            for mark, name in _BOMS.items():
                if block.startswith(mark):
                    return name
        if b"\0" in block or (legacy and len(block.translate(None, _CONTROLS)) < len(block)):
            raise UserError(f"{path} is no text file: it is of another kind, or set data.table.encoding")
        done += len(block)
        if legacy:
            continue
        try:
            letters |= not decoder.decode(block).isascii()
        except UnicodeDecodeError as error:
            good = error.object[: error.start].decode("utf-8")
            if letters or not good.isascii():
                raise UserError(
                    f"{path} is in UTF-8 but for about byte {done - len(block) + error.start}: correct it or "
                    "set data.table.encoding"
                ) from error
            legacy = True
            if len(block.translate(None, _CONTROLS)) < len(block):
                raise UserError(f"{path} is no text file: fetch it again") from error
    return "cp1252" if legacy else "utf-8"


def _sample(path: Path, encoding: str) -> str:
    """The first lines, whole ones."""
    text = ""
    for part in _decoded(path, encoding):
        text += part
        if len(text) >= SAMPLE:
            break
    lines = io.StringIO(text, newline="").readlines()[: LINES + 1]
    return "".join(lines)


def _try(path: Path, sample: str, form: TextForm, separator: str, wanted: list[str]):
    """How well a separator fits, the form with it, and the sample's rows."""
    # MovieLens' .dat and RecBole's files know no quotes: a title may begin with one.
    bare = len(separator) > 1 or text_suffix(path) in (".inter", ".item", ".user")
    quote = form.quote or (NO_QUOTE if bare else '"')
    rows = _rows(sample, separator, quote)
    names = _names(rows[0], wanted) if rows else []
    found = sum(name in names or (name.isdigit() and 0 < int(name) <= len(names)) for name in wanted)
    even = len(names) > 1 and all(len(row) == len(names) for row in rows)
    return (found, even), dataclasses.replace(form, separator=separator, quote=quote), rows


def _rows(sample: str, separator: str, quote: str) -> list[list[str]]:
    if len(separator) > 1:
        return [line.split(separator) for line in sample.splitlines()[:LINES]]
    quoting = csv.QUOTE_NONE if quote == NO_QUOTE else csv.QUOTE_MINIMAL
    char = '"' if quote == NO_QUOTE else quote
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=separator, quotechar=char, quoting=quoting)
    rows = []
    try:
        for row in reader:
            rows.append(row)
            if len(rows) == LINES:
                break
    except csv.Error:
        pass  # duckdb says where
    return rows


def _names(row: list[str], wanted: list[str]) -> list[str]:
    """The names of a header, without RecBole's types unless they are asked for."""
    return [name if name in wanted else _TYPE.sub("", name.strip()) for name in row]


def _has_header(rows: list[list[str]], names: list[str], wanted: list[str]) -> str:
    if any(name in names and not name.isdigit() for name in wanted):
        return "yes"
    return "yes" if looks_like_header(rows) or not all(name.isdigit() for name in wanted) else "no"


def looks_like_header(rows: list[list[str]]) -> bool:
    """Whether some column holds numbers but for its first row."""
    first, *others = rows
    others = [row for row in others if len(row) == len(first)]
    return any(
        others and not _is_number(first[k]) and all(_is_number(row[k]) for row in others)
        for k in range(len(first))
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
