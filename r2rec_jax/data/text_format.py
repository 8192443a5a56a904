"""The format of a text table: separator, header, encoding and quotes, detected or set.

Detected values are logged. A wrong one can be corrected with the fields of `data.table`.
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
SAMPLE = 1 << 20  # characters read to detect the separator and the header
LINES = 100  # rows used to detect the separator and the header
BLOCK = 1 << 22
NO_QUOTE = "none"

_TYPE = re.compile(r":(?:token|float)(?:_seq)?$")  # RecBole's headers are NAME:TYPE
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1a"))
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_BOMS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclasses.dataclass(frozen=True)
class TextForm:
    """The format of a text table. Fields that are "" are detected.

    separator: up to four characters. header: "yes" or "no". encoding: a Python codec name. quote: a quotation
    mark, or "none".
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
            raise UserError(f"data.table.encoding={self.encoding!r} is not a Python codec name") from None

    def __str__(self) -> str:
        quote = self.quote if self.quote == NO_QUOTE else repr(self.quote)
        return f"separator {self.separator!r}, header {self.header}, encoding {self.encoding}, quotes {quote}"


STRICT_CSV = TextForm(",", "yes", "utf-8", '"')


def detect(path: Path, form: TextForm, wanted: list[str]) -> tuple[TextForm, list[str], list[str]]:
    """Detects the open fields of `form`.

    wanted: the columns to read. The separator whose header contains most of them is chosen.

    Returns:
      the complete form, the column names ("1", "2", ... without a header), and the fields of the first line.

    Raises:
      UserError: the file cannot be read as text, or has no header although `wanted` contains names.
    """
    form = dataclasses.replace(form, encoding=form.encoding or _encoding(path))
    sample = _sample(path, form.encoding)
    usual = USUAL.get(text_suffix(path), ",")
    separators = dict.fromkeys((form.separator,) if form.separator else (usual, *SEPARATORS))
    # Prefers separators that find more columns, then rows of equal length, then the usual separator.
    trials = [_try(path, sample, form, separator, wanted) for separator in separators]
    (matches, _), form, rows = max(trials, key=lambda trial: trial[0])
    if not rows:
        raise UserError(f"{path}:1: no readable first line: fetch it again")
    names = _names(rows[0], wanted)
    if not matches and not form.header and len(names) > 1 < len(rows) and not looks_like_header(rows):
        raise UserError(
            f"{path}:1: no column {wanted[0]!r} and no header: use column numbers, 1 for the first column"
        )
    header = form.header or _has_header(rows, names, wanted)
    if header == "no":
        names = [str(k + 1) for k in range(len(rows[0]))]
    return dataclasses.replace(form, header=header), names, rows[0]


def text_suffix(path: Path) -> str:
    """The suffix of a file without ".gz", in lower case: ".csv" for Log.CSV.gz."""
    return next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")


def as_utf8(path: Path, form: TextForm, folder: Path) -> Path:
    """The file itself if it is UTF-8, else a UTF-8 copy in `folder`."""
    if codecs.lookup(form.encoding).name == "utf-8":
        return path
    converted = folder / f"{path.name.removesuffix('.gz')}.utf8"
    with open(converted, "wb") as out:
        for text in _decoded(path, form.encoding):
            out.write(text.encode("utf-8"))
    return converted


def begins_with(path: Path, start: bytes) -> bool:
    """Whether the file begins with `start`, after a byte order mark and whitespace."""
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
    """Detects the encoding: that of a byte order mark, else UTF-8 if the file decodes as it, else cp1252.

    Raises:
      UserError: the file is binary, or mixes UTF-8 with another encoding.
    """
    decoder, done, letters, legacy = codecs.getincrementaldecoder("utf-8")("strict"), 0, False, False
    for block in _blocks(path):
        if not done:
            for mark, name in _BOMS.items():
                if block.startswith(mark):
                    return name
        if b"\0" in block or (legacy and len(block.translate(None, _CONTROLS)) < len(block)):
            raise UserError(f"{path} is not a text file: use another file, or set data.table.encoding")
        done += len(block)
        if legacy:
            continue
        try:
            letters |= not decoder.decode(block).isascii()
        except UnicodeDecodeError as error:
            good = error.object[: error.start].decode("utf-8")
            if letters or not good.isascii():
                raise UserError(
                    f"{path} is UTF-8 except near byte {done - len(block) + error.start}: correct it or "
                    "set data.table.encoding"
                ) from error
            legacy = True
            if len(block.translate(None, _CONTROLS)) < len(block):
                raise UserError(f"{path} is not a text file: fetch it again") from error
    return "cp1252" if legacy else "utf-8"


def _sample(path: Path, encoding: str) -> str:
    """The first complete lines of the file."""
    text = ""
    for part in _decoded(path, encoding):
        text += part
        if len(text) >= SAMPLE:
            break
    lines = io.StringIO(text, newline="").readlines()[: LINES + 1]
    return "".join(lines)


def _try(path: Path, sample: str, form: TextForm, separator: str, wanted: list[str]):
    """Parses the sample with one separator.

    Returns ((number of wanted columns found, whether all rows have equal length), form, rows).
    """
    # MovieLens' .dat and RecBole's files have no quoting: a title may begin with a quotation mark.
    bare = len(separator) > 1 or text_suffix(path) in (".inter", ".item", ".user")
    quote = form.quote or (NO_QUOTE if bare else '"')
    rows = _rows(sample, separator, quote)
    names = _names(rows[0], wanted) if rows else []
    matches = sum(name in names or (name.isdigit() and 0 < int(name) <= len(names)) for name in wanted)
    even = len(names) > 1 and all(len(row) == len(names) for row in rows)
    return (matches, even), dataclasses.replace(form, separator=separator, quote=quote), rows


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
        pass  # duckdb reports the line later
    return rows


def _names(row: list[str], wanted: list[str]) -> list[str]:
    """The column names of a header row, without RecBole's type suffixes unless `wanted` contains them."""
    return [name if name in wanted else _TYPE.sub("", name.strip()) for name in row]


def _has_header(rows: list[list[str]], names: list[str], wanted: list[str]) -> str:
    if any(name in names and not name.isdigit() for name in wanted):
        return "yes"
    return "yes" if looks_like_header(rows) or not all(name.isdigit() for name in wanted) else "no"


def looks_like_header(rows: list[list[str]]) -> bool:
    """Whether a column contains numbers in all rows except the first."""
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
