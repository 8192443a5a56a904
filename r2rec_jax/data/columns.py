"""Builds the SQL that reads the named columns of a raw file: ids as text, times as seconds and nanoseconds.

Delimited text and JSON lines are read as text. Parquet columns are typed: whole floats and decimals become
integers, dates and timestamps become instants (UTC if they have no time zone), and a list holds several
genres. User input enters the SQL only through `literal`, `pattern` and `name`.
"""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

from absl import logging

from r2rec_jax.data import text_format
from r2rec_jax.data.text_format import TextForm
from r2rec_jax.runtime.errors import UserError

LONGEST_LINE = 1 << 25  # bytes; a title of 10 MB still fits
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_NESTED = re.compile(r"(STRUCT|MAP|UNION|VARIANT|BLOB|BIT|INTERVAL|GEOMETRY|TIME\b).*|.*\]")
_LIST = re.compile(r".*\[\d*\]")
_DATED = re.compile(r"DATE|TIMESTAMP.*")
_FLOATS = re.compile(r"FLOAT|DOUBLE|DECIMAL.*")


@dataclasses.dataclass(frozen=True)
class Source:
    """SQL of a raw file.

    table: the table expression to select from. text: the SQL of each column as text. clock: the SQL of the
    seconds (BIGINT) and of the nanoseconds within them (INTEGER), ("0", "0") without a time column.
    """

    table: str
    text: dict[str, str]
    clock: tuple[str, str] = ("0", "0")


def read_columns(
    path: Path,
    columns: dict[str, str],
    *,
    unit: str,
    form: TextForm,
    work: Path,
    execute: Callable,
) -> Source:
    """Builds the SQL of `columns`, which maps our names (user, item, rating, time, id, ...) to the file's.

    unit: unit of numeric times. form: format of a text table. work: folder for a copy converted to UTF-8.
    execute: function that runs SQL; errors then mention the path passed to it.

    Raises:
      UserError: the file is missing, of an unknown kind, or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: correct the path")
    suffix = text_format.text_suffix(path)
    if suffix in (".jsonl", ".json", ".ndjson"):
        table, text = _json(path, columns)
    elif suffix in (".parquet", ".pq"):
        return _parquet(path, columns, unit, execute)
    elif suffix in text_format.SUFFIXES:
        table, text = _text(path, columns, form, work)
    else:
        kinds = ", ".join((".jsonl", ".json", ".parquet", *text_format.SUFFIXES))
        raise UserError(f"{path}: unknown kind of file: use {kinds} (all but Parquet also .gz)")
    return Source(table, text, _clock(text["time"], unit) if "time" in text else ("0", "0"))


def _json(path: Path, columns: dict[str, str]) -> tuple[str, dict[str, str]]:
    keys = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in dict.fromkeys(columns.values()))
    kind = "array" if text_format.begins_with(path, b"[") else "newline_delimited"
    table = (
        f"read_json({pattern(path)}, format = '{kind}', columns = {{{keys}}}, hive_partitioning = false, "
        f"compression = '{_compression(path)}', maximum_object_size = {LONGEST_LINE})"
    )
    return table, {ours: name(column) for ours, column in columns.items()}


def _text(path: Path, columns: dict[str, str], form: TextForm, work: Path) -> tuple[str, dict[str, str]]:
    open_ = form != text_format.STRICT_CSV
    form, names, first = text_format.detect(path, form, list(dict.fromkeys(columns.values())))
    if open_:
        logging.info("%s: %s", path, form)
    places = {ours: find_column(path, names, column) for ours, column in columns.items()}
    readable = text_format.as_utf8(path, form, work)
    require_whole(path, readable)
    typed = ", ".join(f"'c{k}': 'VARCHAR'" for k in range(len(names)))
    quote = "" if form.quote == text_format.NO_QUOTE else form.quote
    table = (
        f"read_csv({pattern(readable)}, auto_detect = false, header = {str(form.header == 'yes').lower()}, "
        f"delim = {literal(form.separator)}, quote = {literal(quote)}, escape = {literal(quote)}, "
        f"strict_mode = true, columns = {{{typed}}}, hive_partitioning = false, "
        f"compression = '{_compression(readable)}', max_line_size = {LONGEST_LINE}, "
        f"buffer_size = {2 * LONGEST_LINE})"
    )
    text = {ours: f"c{place}" for ours, place in places.items()}
    if "genres" in places and first[places["genres"]].endswith(":token_seq"):
        text["genres"] = f"replace({text['genres']}, ' ', '|')"
    return table, text


def _parquet(path: Path, columns: dict[str, str], unit: str, execute: Callable) -> Source:
    table = f"read_parquet({pattern(path)}, hive_partitioning = false, binary_as_string = true)"
    types = {row[0]: row[1] for row in execute(f"DESCRIBE SELECT * FROM {table}", path).fetchall()}
    text, clock = {}, ("0", "0")
    for ours, column in columns.items():
        find_column(path, list(types), column)
        value, type_ = name(column), types[column]
        if _NESTED.fullmatch(type_) and not (ours == "genres" and _LIST.fullmatch(type_)):
            raise UserError(f"{path}: column {column!r} has type {type_}: name a column of single values")
        text[ours] = _as_text(ours, value, type_)
        if ours == "time":
            clock = _dated(value, type_) if _DATED.fullmatch(type_) else _clock(text[ours], unit)
    return Source(table, text, clock)


def _as_text(ours: str, value: str, type_: str) -> str:
    if _LIST.fullmatch(type_):
        return f"CAST(to_json({value}) AS VARCHAR)"
    if ours == "year" and _DATED.fullmatch(type_):
        return f"CAST(year({value}) AS VARCHAR)"
    plain = f"CAST({value} AS VARCHAR)"
    if _FLOATS.fullmatch(type_):
        whole = f"{value} = trunc({value}) AND abs({value}) < 1e15"
        integer = f"CAST(CAST({value} AS BIGINT) AS VARCHAR)"
        return f"CASE WHEN {whole} THEN {integer} ELSE nullif({plain}, 'nan') END"
    return plain


def _dated(value: str, type_: str) -> tuple[str, str]:
    """SQL of the seconds and nanoseconds of a typed date or timestamp, at its full resolution."""
    if type_.endswith("_NS"):
        ticks, per_second, fine = f"epoch_ns({value})", 1_000_000_000, 1
    else:
        ticks, per_second, fine = f"epoch_us({value})", 1_000_000, 1000
    return f"{ticks} // {per_second}", f"CAST({ticks} % {per_second} * {fine} AS INTEGER)"


def _clock(text: str, unit: str) -> tuple[str, str]:
    """SQL of the seconds and nanoseconds of a time stored as text.

    The text is a number in `unit`, or an ISO date or timestamp with an offset or in UTC.
    """
    ticks = UNITS[unit]
    integer = f"CAST(TRY_CAST({text} AS BIGINT) AS VARCHAR) = {text}"  # a cast alone would round
    number = f"TRY_CAST({text} AS DECIMAL(38, 9))"
    whole = f"CAST(floor({number}) AS HUGEINT)"
    # A cast to TIMESTAMP_NS would drop the offset, so the last three digits are read from the text.
    is_date = f"regexp_matches({text}, '^\\s*\\d{{4}}-\\d')"
    us = f"epoch_us(TRY_CAST({text} AS TIMESTAMPTZ))"
    beyond = f"rpad(regexp_extract({text}, '\\.\\d{{6}}(\\d{{1,3}})', 1), 3, '0')"
    seconds = (
        f"CASE WHEN {integer} THEN TRY_CAST({text} AS BIGINT) // {ticks} "
        f"WHEN {is_date} THEN {us} // 1000000 ELSE TRY_CAST({whole} AS BIGINT) // {ticks} END"
    )
    per_tick = UNITS["ns"] // ticks
    part = f"floor(CAST({number} - {whole} AS DOUBLE) * {per_tick} + 1e-3)"
    fine = (
        f"CASE WHEN {integer} THEN TRY_CAST({text} AS BIGINT) % {ticks} * {per_tick} "
        f"WHEN {is_date} THEN {us} % 1000000 * 1000 + CAST({beyond} AS BIGINT) "
        f"ELSE TRY_CAST({whole} % {ticks} * {per_tick} AS BIGINT) + CAST({part} AS BIGINT) END"
    )
    return seconds, f"TRY_CAST({fine} AS INTEGER)"


def require_whole(path: Path, readable: Path) -> None:
    """Checks that a text table was not truncated within its last row, which would still parse.

    A truncated gzip file fails when it is read. `readable` is the file itself or its UTF-8 copy.

    Raises:
      UserError: the file does not end with a line break, or its last line is too long.
    """
    if readable.suffix.lower() == ".gz":
        return
    size = readable.stat().st_size
    with open(readable, "rb") as file:
        file.seek(max(0, size - LONGEST_LINE))
        end = file.read()
    if end[-1:] not in (b"\n", b"\r"):
        raise UserError(
            f"{path} does not end with a line break, so it may be truncated: fetch it again, or add one"
        )
    # duckdb 2.0 silently drops a last line that is longer than its buffer.
    if size > LONGEST_LINE and b"\n" not in end[:-1]:
        raise UserError(f"{path}: its last line is longer than {LONGEST_LINE} bytes: correct it")


def _compression(path: Path) -> str:
    return "gzip" if path.suffix.lower() == ".gz" else "none"


def find_column(path: Path, names: list[str], wanted: str) -> int:
    """The index of a column among `names`. A number that is not a name is a 1-based position.

    Raises:
      UserError: there is no such column, or more than one.
    """
    if names.count(wanted) == 1:
        return names.index(wanted)
    if wanted.isascii() and wanted.isdigit() and 0 < int(wanted) <= len(names) and wanted not in names:
        return int(wanted) - 1
    available = ", ".join(repr(name[:40]) for name in names[:20]) or "nothing"
    many = "more than one" if names.count(wanted) else "no"
    raise UserError(
        f"{path}:1: {many} column {wanted!r} among {available}: set the right name in data.table, or an "
        "empty name if the file has no such column"
    )


def has_blanks(text: str) -> str:
    """SQL that tests whether a text begins or ends with whitespace."""
    return f"coalesce(regexp_matches({text}, '^[\\s\\x{{A0}}]|[\\s\\x{{A0}}]$'), false)"


def trimmed(text: str) -> str:
    """SQL that strips whitespace from a text."""
    # trim() with several characters is slow, and few ids need it.
    blanks = "' ' || chr(9) || chr(10) || chr(11) || chr(12) || chr(13) || chr(160)"
    return f"CASE WHEN {has_blanks(text)} THEN trim({text}, {blanks}) ELSE {text} END"


def literal(text: str | Path) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def path_text(path: Path) -> str:
    """A path for duckdb: absolute, since duckdb expands "~" and opens URLs, and decoded as UTF-8.

    The encoding of file names in the process' locale has no effect.

    Raises:
      UserError: the path is not valid UTF-8.
    """
    try:
        return os.fsencode(path.absolute()).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: duckdb cannot open a path that is not valid UTF-8: rename it") from None


def pattern(path: Path) -> str:
    """SQL literal of a path for duckdb's read functions, with the glob characters escaped.

    Raises:
      UserError: the path contains a backslash and a glob character.
    """
    text = path_text(path)
    if "\\" in text and set(text) & set("*?["):
        raise UserError(
            f"{path}: duckdb cannot open a path with a backslash and one of *, ? and [: rename it"
        )
    return literal(re.sub(r"([\[*?])", r"[\1]", text))


def name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
