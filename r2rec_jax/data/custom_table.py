"""Reads custom tables (delimited text, JSON lines or Parquet) with the columns named in the config."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.columns import UNITS
from r2rec_jax.data.config import TableConfig
from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.data.mapped_text import LabelsBuilder, Texts, Traits
from r2rec_jax.data.raw_files import Stage, StagedRatings
from r2rec_jax.data.text_format import TextForm
from r2rec_jax.runtime.errors import UserError

_YEAR = re.compile(r"(\d{4})(?:\.0+|-\d\d.*)?")  # 1995, pandas' 1995.0, a date


def read_table(
    folder: str | Path, names: TableConfig, stage: Stage, rules: Rules
) -> tuple[Interactions, Catalog]:
    """Reads the ratings file, and the items and users files if `names` has them.

    `names` is `config.data.table`: file names relative to `folder`, and their column names. An empty name
    means that there is no such file or column. Item ids are in column `items_id` of the items file, or
    `item` if that is empty. User ids are in `users_id` of the users file, or `user`.
    Without a rating column every rating is 1. Without a time column the rows are in time order. Times are
    numbers in `names.unit`, or dates. Genres are joined by "|", or a list.

    Raises:
      UserError: a missing or damaged file, a missing column, or a bad value (with its row).
    """
    folder = Path(folder)
    if names.unit not in UNITS:
        raise UserError(f"data.table.unit={names.unit!r}: use {', '.join(UNITS)}")
    path = folder / names.ratings
    columns = {ours: name for ours in ("user", "item", "rating", "time") if (name := getattr(names, ours))}
    for ours in ("user", "item"):
        if ours not in columns:
            raise UserError(f"data.table.{ours} is empty: set it to the column of {path} with {ours} ids")
    form = TextForm(names.separator, names.header, names.encoding, names.quote)
    signed = rules.scale is not None and rules.scale.least < 0
    ratings = stage.ratings(path, columns, unit=names.unit, form=form, signed=signed)
    log = rules.log(
        **ratings.columns(),
        n_users=ratings.n_users,
        n_items=ratings.n_items,
        where=str(path),
        unit=names.unit,
        ordered=ratings.ordered,
    )
    title, year, genres = _items(folder, names, form, stage, ratings, rules)
    users = _users(folder, names, form, stage, ratings, rules)
    return log, Catalog(title, year, genres, users, *ratings.all_ids())


def _items(
    folder: Path, names: TableConfig, form: TextForm, stage: Stage, ratings: StagedRatings, rules: Rules
):
    path = folder / names.items_file
    years, genres = np.zeros(ratings.n_items, np.int32), LabelsBuilder()
    fields = [field for field in ("title", "year", "genres") if names[field]] if names.items_file else []
    filled = dict.fromkeys(("year", "genres"), 0)

    def rows() -> Iterator[tuple]:
        if not names.items_file:
            yield from ((item, 1) for item in ratings.ids("items"))
            return
        staged = stage.facts(
            path, {"id": names.items_id or names.item} | {f: names[f] for f in fields}, form=form
        )
        ratings.require_match("items", path, staged)
        yield from ratings.facts("items", staged, fields)
        rules.count("items_left_out", ratings.left_out("items", staged))

    def titles() -> Iterator[str]:
        for number, (item, listed, *values) in enumerate(rows()):
            fact = dict(zip(fields, values, strict=True))
            rules.count("items_not_listed", listed == 0)
            rules.count("items_repeated", max(0, listed - 1))
            for field in filled:
                filled[field] += bool(fact.get(field))
            genres.append(rules.labels(genre_names(fact.get("genres") or "", rules)))
            years[number] = _year(fact.get("year") or "", rules)
            yield rules.title(fact.get("title"), f"item {item}")

    title = Texts.of(titles())
    if not names.items_file:
        rules.warn(f"{folder / names.ratings}: no data.table.items_file, so titles are ids")
    else:
        totals = {"items": ratings.n_items, "years": filled["year"], "genres": filled["genres"]}
        rules.check_limits(totals | ({"titles": ratings.n_items} if names.title else {}), str(path))
    return title, years, genres.labels()


def genre_names(text: str, rules: Rules) -> list[str]:
    """The genres of "A|B", or of a JSON or Python list: ["A", "B"]."""
    names = text.split("|")
    if text.startswith("[") and text.endswith("]"):
        try:
            names = json.loads(text) if '"' in text else ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str | None) for name in names):
            rules.count("items_with_unreadable_categories")
            return []
    return [name.strip() for name in names if name and name.strip()]


def _year(text: str, rules: Rules) -> int:
    match = _YEAR.fullmatch(text.strip()) if text.isascii() else None
    rules.count("years_unreadable", bool(text.strip()) and not match)
    return int(match[1]) if match else 0


def _users(
    folder: Path, names: TableConfig, form: TextForm, stage: Stage, ratings: StagedRatings, rules: Rules
) -> Traits:
    fields, path = list(names.demographics), folder / names.users_file
    if not names.users_file or not fields:
        return Traits({}, np.empty((ratings.n_users, 0), np.int32))
    # Numbered names, so that a user's column called "id" cannot collide with ours.
    columns = {"id": names.users_id or names.user} | {f"d{k}": field for k, field in enumerate(fields)}
    staged = stage.facts(path, columns, form=form)
    ratings.require_match("users", path, staged)
    people = []
    for _, listed, *values in ratings.facts("users", staged, list(columns)[1:]):
        rules.count("users_not_listed", listed == 0)
        rules.count("users_repeated", max(0, listed - 1))
        traits = {field: value for field, value in zip(fields, values, strict=True) if value}
        people.append({field: rules.label(value) for field, value in traits.items()})
    rules.count("users_left_out", ratings.left_out("users", staged))
    rules.check_limits({"users": ratings.n_users}, str(path))
    return Traits.of(people)
