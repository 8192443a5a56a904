"""Raw files of any size through duckdb: parsed once into typed columns, in bounded memory.

A raw file (JSON lines, CSV or TSV, Parquet; the first three may be gzipped) becomes one staged Parquet
file of the columns that matter, in the raw file's order. Staging reads every value as text and converts
it here, so that a bad one is reported with its row. Staged files are kept until the data set is done: a
killed run does not parse what it had parsed. Ids become numbers by sorted order, which depends on no
thread. All SQL text is made here; what users wrote enters it through `_literal` and `_name` only.
"""

import contextlib
import csv
import gzip
import hashlib
import os
import re
import shutil
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
from absl import logging
from tqdm import tqdm

from r2rec_jax.data.interactions import BLOCK
from r2rec_jax.data.mapped import Texts
from r2rec_jax.runtime.errors import UserError

MEMORY = "2GB"  # duckdb's own; beyond it sorts and joins go to disk
LONGEST_LINE = 1 << 25  # bytes; a title of 10 MB still fits
LONGEST_ID = 200
LONGEST_TEXT = 20_000  # of a title or a list of genres, characters, before the rules of data/rules.py

_TIMES = re.compile(r"DATE|TIMESTAMP.*")


class Stage:
    """A folder for staged files and a database that spills there instead of growing.

    Use as a context: `with Stage(folder) as stage`. On leaving, everything but finished staged files is
    removed; the folder itself, when there is none.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.work = self.folder / "work"

    def __enter__(self) -> "Stage":
        # Left by a run that was killed: only whole staged files are worth keeping.
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.database = duckdb.connect(
            ":memory:",  # of at most MEMORY; what does not fit goes to the spill folder
            config={
                "memory_limit": MEMORY,
                "temp_directory": str(self.work / "spill"),
                "preserve_insertion_order": "true",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
            },
        )
        self.database.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        return self

    def __exit__(self, *_) -> None:
        self.database.close()
        shutil.rmtree(self.work, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # only when empty

    def ratings(
        self, path: Path, columns: dict[str, str], *, unit: str, least: float, most: float
    ) -> "StagedRatings":
        """Stages a ratings file; `columns` maps user, item, rating and time to the file's names.

        Times become integers of `unit` ("s", "ms", "us"). Ratings must lie in least..most.

        Raises:
          UserError: a file that cannot be parsed, lacks a column or has no row, or a bad value, with its row.
        """
        table, text = _table(self, path, columns, unit)
        staged = self._staged(
            path,
            f"""SELECT "user", item, TRY_CAST(rating AS FLOAT) AS rating,
            TRY_CAST("time" AS BIGINT) AS "time", CASE
            WHEN {_bad_id('"user"')} THEN {_fault(columns["user"], '"user"', "an id")}
            WHEN {_bad_id("item")} THEN {_fault(columns["item"], "item", "an id")}
            WHEN NOT coalesce(TRY_CAST(rating AS DOUBLE) BETWEEN {least:g} AND {most:g}, false)
              THEN {_fault(columns["rating"], "rating", f"a rating of {least:g} to {most:g}")}
            WHEN TRY_CAST("time" AS BIGINT) IS NULL
              THEN {_fault(columns["time"], '"time"', f"a time in '{unit}'")}
            END AS fault
            FROM (SELECT {text["user"]} AS "user", {text["item"]} AS item, {text["rating"]} AS rating,
                  {text["time"]} AS "time" FROM {table})""",
            path,
        )
        return StagedRatings(self, path, staged)

    def facts(self, path: Path, columns: dict[str, str], shown: Path | None = None) -> Path:
        """Stages an items or users file: `columns` as in `ratings`; "id" must be one. All is text.

        Errors name the file `shown`, from which `path` was made, if it is not the user's own.

        Raises:
          UserError: as `ratings`.
        """
        table, text = _table(self, path, columns, "s")
        others = "".join(
            f", left({text[ours]}, {LONGEST_TEXT}) AS {_name(ours)}" for ours in columns if ours != "id"
        )
        return self._staged(
            path,
            f"""SELECT *, CASE WHEN {_bad_id("id")} THEN {_fault(columns["id"], "id", "an id")} END AS fault
            FROM (SELECT {text["id"]} AS id{others} FROM {table})""",
            shown or path,
        )

    def _staged(self, path: Path, query: str, shown: Path) -> Path:
        """The result of `query` as a Parquet file, reused when the raw file has not changed since."""
        facts = path.stat()
        key = f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns} {duckdb.__version__} {query}"
        staged = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.parquet"
        if staged.exists():
            logging.info("%s: parsed by an earlier run", shown)
            return staged
        fresh = self.work / staged.name
        self.execute(f"COPY ({query}) TO {_literal(fresh)} (FORMAT parquet, COMPRESSION zstd)", shown)
        rows = f"read_parquet({_literal(fresh)}, file_row_number = true)"
        if not self.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]:
            raise UserError(f"{shown} holds no rows: fetch it again")
        bad = self.execute(
            f"SELECT file_row_number, fault FROM {rows} WHERE fault IS NOT NULL ORDER BY 1 LIMIT 1"
        ).fetchone()
        if bad:
            raise UserError(f"{shown} row {bad[0] + 1}: {bad[1]}; correct the file or fetch it again")
        os.replace(fresh, staged)
        return staged

    def execute(self, query: str, path: Path | None = None):
        """Runs SQL. With `path`, shows progress and turns duckdb's complaint about it into one line."""
        try:
            with self._progress(path) if path else contextlib.nullcontext():
                return self.database.execute(query)
        except duckdb.Error as error:
            if path is None:
                raise
            if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in str(error):
                what = str(error).splitlines()[0]
                raise UserError(f"{path}: no room in memory ({MEMORY}) or on disk: {what}") from error
            raise UserError(_explain(path, str(error))) from error
        except RuntimeError as error:
            # duckdb swallows the KeyboardInterrupt that stopped it.
            if "interrupted" in str(error):
                raise KeyboardInterrupt from error
            raise

    @contextlib.contextmanager
    def _progress(self, path: Path) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            with tqdm(
                total=100,
                desc=path.name,
                bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}",
            ) as bar:
                while not over.wait(0.5):
                    bar.n = max(bar.n, self.database.query_progress())
                    bar.refresh()

        watcher = threading.Thread(target=watch, daemon=True)
        # A small file is done before anybody could read a bar.
        if path.stat().st_size > 1 << 25:
            watcher.start()
        try:
            yield
        finally:
            over.set()
            if watcher.ident:
                watcher.join()


class StagedRatings:
    """A staged ratings file whose users and items have numbers: their places in sorted order."""

    def __init__(self, stage: Stage, path: Path, staged: Path):
        self.stage, self.path = stage, path
        rows = f"read_parquet({_literal(staged)}, file_row_number = true)"
        for kind, column in (("users", '"user"'), ("items", "item")):
            stage.execute(f"DROP TABLE IF EXISTS {kind}")
            stage.execute(f"CREATE TABLE {kind} AS SELECT DISTINCT {column} AS id FROM {rows} ORDER BY id")
        stage.execute("DROP TABLE IF EXISTS log")
        stage.execute(
            f"""CREATE TABLE log AS SELECT CAST(users.rowid AS INTEGER) AS "user",
            CAST(items.rowid AS INTEGER) AS item, r.rating, r."time", r.file_row_number AS place
            FROM {rows} r JOIN users ON r."user" = users.id JOIN items ON r.item = items.id"""
        )
        self.n_users, self.n_items = (
            stage.execute(f"SELECT count(*) FROM {kind}").fetchone()[0] for kind in ("users", "items")
        )

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """user int32[N], item int32[N], rating float32[N], time int64[N], in the raw file's order."""
        count = self.stage.execute("SELECT count(*) FROM log").fetchone()[0]
        dtypes = {"user": np.int32, "item": np.int32, "rating": np.float32, "time": np.int64}
        columns = {name: np.empty(count, dtype) for name, dtype in dtypes.items()}
        for start in range(0, count, BLOCK):
            block = self.stage.execute(
                f"SELECT * FROM log WHERE rowid >= {start} AND rowid < {start + BLOCK}"
            ).fetchnumpy()
            # A join keeps no order; the place in the raw file does.
            for name, column in columns.items():
                column[block["place"]] = block[name]
        return tuple(columns.values())

    def ids(self, kind: str) -> Iterator[str]:
        """The raw ids of "users" or "items", by number."""
        yield from (row[0] for row in self._rows(f"SELECT id FROM {kind} ORDER BY rowid"))

    def all_ids(self) -> tuple[Texts, Texts]:
        """The raw ids of users and of items, by number."""
        return Texts.of(self.ids("users")), Texts.of(self.ids("items"))

    def facts(self, kind: str, staged: Path, names: list[str]) -> Iterator[tuple]:
        """For every one of "users" or "items", by number: (id, rows in the file, *facts).

        The facts are those of its first row; None where the file has none.
        """
        listed = ", ".join(f"f.{_name(name)}" for name in names)
        previous = None
        for number, *row in self._rows(
            f"""SELECT {kind}.rowid, {kind}.id, f.file_row_number, {listed} FROM {kind}
            LEFT JOIN read_parquet({_literal(staged)}, file_row_number = true) f ON f.id = {kind}.id
            ORDER BY 1, 3"""
        ):
            if previous is not None and previous[0] == number:
                previous[2] += 1
                continue
            if previous is not None:
                yield tuple(previous[1:])
            previous = [number, row[0], int(row[1] is not None), *row[2:]]
        if previous is not None:
            yield tuple(previous[1:])

    def left_out(self, kind: str, staged: Path) -> int:
        """How many different ids the facts file has that no rating names."""
        return self.stage.execute(
            f"SELECT count(DISTINCT f.id) FROM read_parquet({_literal(staged)}) f "
            f"ANTI JOIN {kind} ON f.id = {kind}.id"
        ).fetchone()[0]

    def _rows(self, query: str) -> Iterator[tuple]:
        result = self.stage.database.cursor().execute(query)
        while rows := result.fetchmany(50_000):
            yield from rows


def find(folder: str | Path, *names: str) -> Path | None:
    """The first of `names` that is a file of `folder`."""
    return next((path for name in names if (path := Path(folder) / name).is_file()), None)


def _table(stage: Stage, path: Path, columns: dict[str, str], unit: str) -> tuple[str, dict[str, str]]:
    """What to select from, and for each of ours the SQL that gives its column as text."""
    if not path.is_file():
        raise UserError(f"{path} is missing: correct the path")
    if set(str(path)) & set("*?["):
        raise UserError(f"{path}: a path with *, ? or [ is a pattern to the reader: rename it")
    kind = [suffix for suffix in path.suffixes if suffix != ".gz"][-1:]
    if kind in ([".jsonl"], [".json"]):
        keys = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in dict.fromkeys(columns.values()))
        table = (
            f"read_json({_literal(path)}, format = 'newline_delimited', columns = {{{keys}}}, "
            f"maximum_object_size = {LONGEST_LINE})"
        )
        return table, {ours: _name(name) for ours, name in columns.items()}
    if kind in ([".csv"], [".tsv"]):
        delimiter = "," if kind == [".csv"] else "\t"
        header = _header(path, delimiter)
        places = {ours: _find_column(path, header, name) for ours, name in columns.items()}
        _require_whole(path)
        names = ", ".join(f"'c{k}': 'VARCHAR'" for k in range(len(header)))
        table = (
            f"read_csv({_literal(path)}, auto_detect = false, header = true, delim = {_literal(delimiter)}, "
            f"quote = '\"', escape = '\"', strict_mode = true, columns = {{{names}}}, "
            f"max_line_size = {LONGEST_LINE}, buffer_size = {2 * LONGEST_LINE})"
        )
        return table, {ours: f"c{place}" for ours, place in places.items()}
    if kind == [".parquet"]:
        table = f"read_parquet({_literal(path)})"
        types = {row[0]: row[1] for row in stage.execute(f"DESCRIBE SELECT * FROM {table}", path).fetchall()}
        text = {}
        for ours, name in columns.items():
            _find_column(path, list(types), name)
            text[ours] = f"CAST({_name(name)} AS VARCHAR)"
            if ours == "time" and _TIMES.fullmatch(types[name]):
                ticks = {"s": 1_000_000, "ms": 1_000, "us": 1}[unit]
                text[ours] = f"CAST(epoch_us(CAST({_name(name)} AS TIMESTAMP)) // {ticks} AS VARCHAR)"
        return table, text
    raise UserError(f"{path}: unknown kind of file: use .jsonl, .json, .csv, .tsv (also .gz) or .parquet")


def _header(path: Path, delimiter: str) -> list[str]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            line = file.readline(1 << 20).decode("utf-8-sig")
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise UserError(f"{path}:1: no readable header ({error}): is it a {path.name[-7:]} file?") from error


def _require_whole(path: Path) -> None:
    """Refuses a CSV cut within its last row, which would still read as one. A cut gzip shows by itself."""
    if path.suffix == ".gz":
        return
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - LONGEST_LINE))
        end = file.read()
    if end[-1:] not in (b"\n", b"\r"):
        raise UserError(
            f"{path} does not end with a line break, so it may be truncated: fetch it again, or add one"
        )
    # duckdb 2.0 drops a last line that is longer than its buffer without a word.
    if size > LONGEST_LINE and b"\n" not in end[:-1]:
        raise UserError(f"{path}: its last line is longer than {LONGEST_LINE} bytes: correct it")


def _find_column(path: Path, names: list[str], wanted: str) -> int:
    if names.count(wanted) != 1:
        found = ", ".join(repr(name[:40]) for name in names[:20]) or "nothing"
        many = "more than one" if names.count(wanted) else "no"
        raise UserError(f"{path}:1: {many} column {wanted!r} among {found}: name the right one")
    return names.index(wanted)


def _explain(path: Path, message: str) -> str:
    """duckdb's complaint in one line, with the raw file's line where it tells it."""
    if match := re.search(r"JSON.*, at byte (\d+) in line (\d+): ([^\n]*)", message):
        # duckdb 2.0 counts the line that it is about to begin.
        line, what = int(match[2]) - 1, f"no JSON at byte {match[1]}: {match[3].split('. ')[0].strip(' .')}"
    elif match := re.search(r"JSON.*, in line (\d+): ([^\n]*)", message):
        line, what = int(match[1]), match[2]
    elif match := re.search(r"CSV Error on Line: (\d+)", message):
        reasons = r"^(Expected Number|Value with|Invalid unicode|Maximum line)[^\n]*"
        reason = re.search(reasons, message, re.MULTILINE)
        line, what = int(match[1]), (reason[0] if reason else message.splitlines()[0]).strip(" .")
    else:
        what = message.splitlines()[0].split(": ", 1)[-1].strip(" .")
        return f"{path} cannot be read ({what[:200]}): it is truncated or of another kind; fetch it again"
    return f"{path}:{line}: {what[:200]}; correct the line or fetch the file again"


def _bad_id(column: str) -> str:
    return f"coalesce(trim({column}), '') = '' OR length({column}) > {LONGEST_ID}"


def _fault(name: str, column: str, expected: str) -> str:
    """SQL for: what is wrong with `column`, which the file calls `name`."""
    value = f"coalesce('holds ' || left({column}, 40), 'is missing')"
    return f"{_literal(f'column {name} ')} || {value} || {_literal(f', not {expected}')}"


def _literal(text: str | Path) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
