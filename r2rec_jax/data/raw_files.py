"""Parses raw files of any size with duckdb into typed columns, in bounded memory.

Each raw file (data/columns.py lists the kinds) becomes one staged Parquet file of the columns that are read,
in the raw file's order. A bad value is reported with its row. Staged files are kept until the data set is
complete, so that a resumed run does not parse them again. Ids are numbered by sorted order, independent of
threads. The result does not depend on the environment: the time zone and all duckdb settings are set here,
and paths are not expanded.
"""

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
from absl import logging
from tqdm import tqdm

from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.columns import has_blanks, literal, name, path_text, pattern, read_columns, trimmed
from r2rec_jax.data.interactions import BLOCK
from r2rec_jax.data.mapped_text import Texts
from r2rec_jax.data.text_format import TextForm
from r2rec_jax.runtime.errors import UserError

MEMORY = "2GB"  # duckdb's memory limit; larger sorts and joins spill to disk
LONGEST_ID = 200  # characters
LONGEST_TEXT = 20_000  # characters of a title or list of genres, before the rules of data/cleaning.py
MOST = 1_000_000  # the highest rating that is accepted


class Stage:
    """A folder for staged files, and a duckdb database that spills to it.

    Use as a context manager: `with Stage(folder) as stage`. On exit it deletes everything except complete
    staged files, and the folder if it is empty.
    """

    def __init__(self, folder: str | Path, rules: Rules | None = None):
        self.folder, self.rules = Path(folder).absolute(), rules or Rules()
        self.work = self.folder / "work"

    def __enter__(self) -> "Stage":
        # An interrupted run may have left incomplete files here.
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.database = duckdb.connect(
            ":memory:",  # limited to MEMORY; the rest spills to temp_directory
            config={
                "memory_limit": MEMORY,
                "temp_directory": path_text(self.work / "spill"),
                "preserve_insertion_order": "true",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
            },
        )
        self.database.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        # By default duckdb takes them from the process and its locale.
        self.database.execute("SET TimeZone = 'UTC'; SET Calendar = 'gregorian'")
        return self

    def __exit__(self, *_) -> None:
        self.database.close()
        shutil.rmtree(self.work, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # only when empty

    def ratings(
        self, path: Path, columns: dict[str, str], *, unit: str, form: TextForm, signed: bool = False
    ) -> "StagedRatings":
        """Stages a ratings file. `columns` maps user, item, rating and time to the file's column names.

        Without a rating column every rating is 1. Without a time column the time is the position in the file.
        Numeric times have the unit `unit`. Negative ratings are an error unless `signed`.

        Raises:
          UserError: the file cannot be parsed, lacks a column, has no row, or has a bad value (with its row).
        """
        read = read_columns(path, columns, unit=unit, form=form, work=self.work, execute=self.execute)
        least = -MOST if signed else 0
        faults = [_bad_id(columns["user"], '"user"'), _bad_id(columns["item"], "item")]
        if "rating" in columns:
            expected = f"a number from {least:,} to {MOST:,}"
            expected += "" if signed else " (negative ratings need a data.scale, as -1:1:2)"
            bad = f"NOT coalesce(TRY_CAST(rating AS DOUBLE) BETWEEN {least} AND {MOST}, false)"
            faults.append(f"WHEN {bad} THEN {_fault(columns['rating'], 'rating', expected)}")
        if "time" in columns:
            expected = f"a time in '{unit}' or an ISO date"
            faults.append(f'WHEN "time" IS NULL THEN {_fault(columns["time"], "as_written", expected)}')
        (seconds, fine), user, item = read.clock, read.text["user"], read.text["item"]
        staged = self._staged(
            path,
            f"""SELECT "user", item, TRY_CAST(rating AS FLOAT) AS rating, "time", fine, trimmed,
            CASE {" ".join(faults)} END AS fault
            FROM (SELECT {trimmed(user)} AS "user", {trimmed(item)} AS item,
                  {has_blanks(user)} OR {has_blanks(item)} AS trimmed,
                  {read.text.get("rating", "'1'")} AS rating, {read.text.get("time", "''")} AS as_written,
                  CAST({seconds} AS BIGINT) AS "time", CAST({fine} AS INTEGER) AS fine FROM {read.table})""",
            path,
        )
        return StagedRatings(self, path, staged, ordered="time" not in columns)

    def facts(
        self, path: Path, columns: dict[str, str], *, form: TextForm, shown: Path | None = None
    ) -> Path:
        """Stages an items or users file with all columns as text.

        `columns` maps "id" and other names to the file's column names. Error messages contain `shown` instead
        of `path` if `path` is a converted copy of `shown`.

        Raises:
          UserError: as `ratings`.
        """
        read = read_columns(path, columns, unit="s", form=form, work=self.work, execute=self.execute)
        others = "".join(
            f", left({read.text[ours]}, {LONGEST_TEXT}) AS {name(ours)}" for ours in columns if ours != "id"
        )
        return self._staged(
            path,
            f"""SELECT *, CASE {_bad_id(columns["id"], "id")} END AS fault
            FROM (SELECT {trimmed(read.text["id"])} AS id, {has_blanks(read.text["id"])} AS trimmed{others}
                  FROM {read.table})""",
            shown or path,
        )

    def plain(self, staged: Path, column: str) -> str:
        """SQL for a text column of a staged file. In a column of whole numbers, 5.0 becomes 5.

        pandas writes whole numbers as 5.0 if the column has missing values.
        """
        rows, text = f"read_parquet({pattern(staged)}, hive_partitioning = false)", name(column)
        any_fraction = f"SELECT coalesce(bool_or(ends_with({text}, '.0')), false) FROM {rows}"
        all_whole = f"SELECT bool_and(regexp_full_match(nullif({text}, ''), '-?\\d+(\\.0)?')) FROM {rows}"
        if not self.execute(any_fraction).fetchone()[0] or not self.execute(all_whole).fetchone()[0]:
            return text
        self.rules.count("columns_of_whole_numbers_with_a_fraction")
        return f"regexp_replace({text}, '\\.0$', '')"

    def _staged(self, path: Path, query: str, shown: Path) -> Path:
        """Writes the result of `query` to a Parquet file, or reuses it if the raw file has not changed."""
        facts = path.stat()
        key = f"{path_text(path.resolve())} {facts.st_size} {facts.st_mtime_ns} {duckdb.__version__} {query}"
        digest = hashlib.sha256(key.encode()).hexdigest()
        staged = self.folder / f"{digest[:24]}.parquet"
        if staged.exists():
            logging.info("%s: parsed by an earlier run", shown)
            return self._counted(staged)
        fresh = self.work / staged.name
        self.execute(
            f"COPY ({query}) TO {literal(path_text(fresh))} (FORMAT parquet, COMPRESSION zstd)", shown
        )
        rows = _rows_of(fresh)
        if not self.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]:
            raise UserError(f"{shown} contains no rows: fetch it again")
        bad = self.execute(
            f"SELECT file_row_number, fault FROM {rows} WHERE fault IS NOT NULL ORDER BY 1 LIMIT 1"
        ).fetchone()
        if bad:
            raise UserError(f"{shown} row {bad[0] + 1}: {bad[1]}; correct the file or fetch it again")
        os.replace(fresh, staged)
        return self._counted(staged)

    def _counted(self, staged: Path) -> Path:
        trimmed = f"SELECT count(*) FROM {_rows_of(staged)} WHERE trimmed"
        self.rules.count("ids_with_blanks_around", self.execute(trimmed).fetchone()[0])
        return staged

    def execute(self, query: str, path: Path | None = None):
        """Runs SQL. With `path`, shows progress and converts duckdb errors to one-line UserErrors."""
        try:
            with self._progress(path) if path else contextlib.nullcontext():
                return self.database.execute(query)
        except duckdb.Error as error:
            if path is None:
                raise
            if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in str(error):
                what = str(error).splitlines()[0]
                raise UserError(f"{path}: not enough memory ({MEMORY}) or disk space: {what}") from error
            raise UserError(_explain(path, str(error))) from error
        except RuntimeError as error:
            # duckdb replaces a KeyboardInterrupt with this error.
            if "interrupted" in str(error):
                raise KeyboardInterrupt from error
            raise

    @contextlib.contextmanager
    def _progress(self, path: Path) -> Iterator[None]:
        done = threading.Event()

        def watch() -> None:
            with tqdm(
                total=100,
                desc=path.name,
                bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}",
            ) as bar:
                while not done.wait(0.5):
                    bar.n = max(bar.n, self.database.query_progress())
                    bar.refresh()

        watcher = threading.Thread(target=watch, daemon=True)
        # Small files finish too fast for a progress bar.
        if path.stat().st_size > 1 << 25:
            watcher.start()
        try:
            yield
        finally:
            done.set()
            if watcher.ident:
                watcher.join()


class StagedRatings:
    """A staged ratings file, with users and items numbered by the sorted order of their ids."""

    def __init__(self, stage: Stage, path: Path, staged: Path, ordered: bool):
        self.stage, self.path, self.ordered = stage, path, ordered
        self._plain: dict[Path, str] = {}
        rows = _rows_of(staged)
        user, item = stage.plain(staged, "user"), stage.plain(staged, "item")
        for kind, column in (("users", user), ("items", item)):
            stage.execute(f"DROP TABLE IF EXISTS {kind}")
            stage.execute(f"CREATE TABLE {kind} AS SELECT DISTINCT {column} AS id FROM {rows} ORDER BY id")
        stage.execute("DROP TABLE IF EXISTS log")
        stage.execute(
            f"""CREATE TABLE log AS SELECT CAST(users.rowid AS INTEGER) AS "user",
            CAST(items.rowid AS INTEGER) AS item, r.rating, r."time", r.fine, r.file_row_number AS place
            FROM (SELECT * REPLACE ({user} AS "user", {item} AS item) FROM {rows}) r
            JOIN users ON r."user" = users.id JOIN items ON r.item = items.id"""
        )
        self.n_users, self.n_items = (
            stage.execute(f"SELECT count(*) FROM {kind}").fetchone()[0] for kind in ("users", "items")
        )

    def columns(self) -> dict[str, np.ndarray | None]:
        """The columns in the order of the raw file.

        user int32[N], item int32[N], rating float32[N], time int64[N] in seconds (the position in the file if
        `ordered`), fine int32[N] in nanoseconds or None.
        """
        count, finest = self.stage.execute("SELECT count(*), max(fine) FROM log").fetchone()
        dtypes = {"user": np.int32, "item": np.int32, "rating": np.float32, "time": np.int64}
        if finest:
            dtypes["fine"] = np.int32
        columns = {ours: np.empty(count, dtype) for ours, dtype in dtypes.items()}
        for start in range(0, count, BLOCK):
            block = self.stage.execute(
                f"SELECT * FROM log WHERE rowid >= {start} AND rowid < {start + BLOCK}"
            ).fetchnumpy()
            if self.ordered:
                block["time"] = block["place"]
            # The join does not preserve the order, so rows are placed by their position in the raw file.
            for ours, column in columns.items():
                column[block["place"]] = block[ours]
        return {"fine": None} | columns

    def ids(self, kind: str) -> Iterator[str]:
        """Yields the raw ids of "users" or "items", ordered by number."""
        yield from (row[0] for row in self._rows(f"SELECT id FROM {kind} ORDER BY rowid"))

    def all_ids(self) -> tuple[Texts, Texts]:
        """The raw ids of users and of items, ordered by number."""
        return Texts.of(self.ids("users")), Texts.of(self.ids("items"))

    def facts(self, kind: str, staged: Path, names: list[str]) -> Iterator[tuple]:
        """Yields (id, number of rows in the file, *columns) for each user or item, ordered by number.

        kind: "users" or "items".
        names: columns of the first row with this id, None if there is no such row.
        """
        listed = "".join(f", f.{name(column)}" for column in names)
        previous = None
        for number, *row in self._rows(
            f"""SELECT {kind}.rowid, {kind}.id, f.file_row_number{listed} FROM {kind}
            LEFT JOIN {self._listed(staged, names)} f ON f.id = {kind}.id ORDER BY 1, 3"""
        ):
            if previous is not None and previous[0] == number:
                previous[2] += 1
                continue
            if previous is not None:
                yield tuple(previous[1:])
            previous = [number, row[0], int(row[1] is not None), *row[2:]]
        if previous is not None:
            yield tuple(previous[1:])

    def require_match(self, kind: str, path: Path, staged: Path) -> None:
        """Raises UserError if no id of an items or users file occurs in the log."""
        listed = self._listed(staged, [])
        matched = f"SELECT count(*) FROM {kind} SEMI JOIN {listed} f ON f.id = {kind}.id"
        if self.stage.execute(matched).fetchone()[0]:
            return
        theirs, ours = (
            ", ".join(repr(row[0][:40]) for row in self._rows(f"SELECT DISTINCT id FROM {rows} LIMIT 3"))
            for rows in (listed, kind)
        )
        raise UserError(
            f"{path} lists none of the {kind} of {self.path}: its ids look like {theirs}, those of the "
            f"ratings like {ours}: set the column with the same ids, or the right file"
        )

    def left_out(self, kind: str, staged: Path) -> int:
        """The number of distinct ids in an items or users file that have no rating."""
        listed = self._listed(staged, [])
        return self.stage.execute(
            f"SELECT count(DISTINCT f.id) FROM {listed} f ANTI JOIN {kind} ON f.id = {kind}.id"
        ).fetchone()[0]

    def _listed(self, staged: Path, columns: list[str]) -> str:
        """SQL table of an items or users file: id, file_row_number and `columns`, after `Stage.plain`."""
        if staged not in self._plain:
            self._plain[staged] = self.stage.plain(staged, "id")
        # A title stays text even if all titles are numbers.
        plain = {
            column: name(column) if column == "title" else self.stage.plain(staged, column)
            for column in columns
        }
        others = "".join(f", {text} AS {name(column)}" for column, text in plain.items())
        return f"(SELECT {self._plain[staged]} AS id, file_row_number{others} FROM {_rows_of(staged)})"

    def _rows(self, query: str) -> Iterator[tuple]:
        result = self.stage.database.cursor().execute(query)
        while rows := result.fetchmany(50_000):
            yield from rows


def find(folder: str | Path, *names: str) -> Path | None:
    """The path of the first of `names` that exists in `folder`, or None."""
    return next((path for name in names if (path := Path(folder) / name).is_file()), None)


def _explain(path: Path, message: str) -> str:
    """duckdb's error message in one line, with the line of the raw file if the message contains it."""
    if match := re.search(r"JSON.*, at byte (\d+) in line (\d+): ([^\n]*)", message):
        # duckdb 2.0 reports the number of the next line.
        line, what = (
            int(match[2]) - 1,
            f"invalid JSON at byte {match[1]}: {match[3].split('. ')[0].strip(' .')}",
        )
    elif match := re.search(r"JSON.*, in line (\d+): ([^\n]*)", message):
        line, what = int(match[1]), match[2]
    elif match := re.search(r"CSV Error on Line: (\d+)", message):
        reasons = r"^(Expected Number|Value with|Invalid unicode|Maximum line)[^\n]*"
        reason = re.search(reasons, message, re.MULTILINE)
        line, what = int(match[1]), (reason[0] if reason else message.splitlines()[0]).strip(" .")
    elif "state machine reached an invalid state" in message:
        return (
            f"{path} cannot be read: it mixes Windows (CRLF) and Unix (LF) line endings, or a line is "
            "damaged; use one kind of line ending"
        )
    else:
        what = message.splitlines()[0].split(": ", 1)[-1].strip(" .")
        return f"{path} cannot be read ({what[:200]}): it is truncated or of another kind; fetch it again"
    return f"{path}:{line}: {what[:200]}; correct the line or fetch the file again"


def _rows_of(staged: Path) -> str:
    return f"read_parquet({pattern(staged)}, file_row_number = true, hive_partitioning = false)"


def _bad_id(column: str, sql: str) -> str:
    """SQL WHEN clause for an invalid id. `column` is the column's name in the file."""
    nested = f"left({sql}, 1) IN ('[', '{{')"  # a JSON list or object
    bad = f"coalesce({sql}, '') = '' OR length({sql}) > {LONGEST_ID} OR {nested}"
    return f"WHEN {bad} THEN {_fault(column, sql, 'an id')}"


def _fault(name: str, column: str, expected: str) -> str:
    """SQL of an error message about the value of `column`, whose name in the file is `name`."""
    value = f"coalesce('holds ' || left({column}, 40), 'is missing')"
    return f"{literal(f'column {name} ')} || {value} || {literal(f', not {expected}')}"
