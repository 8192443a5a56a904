"""Reads a user's own tables: CSV, TSV, JSON lines or Parquet, whose columns the config names."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.data.mapped import LabelsBuilder, Texts, Traits
from r2rec_jax.data.raw import Stage, StagedRatings
from r2rec_jax.data.rules import UNITS, Rules
from r2rec_jax.runtime.errors import UserError

MOST = 1_000_000  # no scale of ratings ends above


def read_table(
    folder: str | Path, names: ConfigDict, stage: Stage, rules: Rules
) -> tuple[Interactions, Catalog]:
    """Reads the ratings, and the items and users where `names` has files for them.

    `names` is `config.data.table`: files relative to `folder` and the columns in them; an empty name is a
    column that is not there. The items file has the column `names.item` too, the users file `names.user`.
    Times are numbers in `names.unit`, or dates in Parquet. Genres are joined by "|".

    Raises:
      UserError: a missing or damaged file, a column that is not there, or a bad value, with its row.
    """
    folder = Path(folder)
    if names.unit not in UNITS:
        raise UserError(f"data.table.unit={names.unit!r}: use {', '.join(UNITS)}")
    path = folder / names.ratings
    columns = {ours: names[ours] for ours in ("user", "item", "rating", "time")}
    for ours, column in columns.items():
        if not column:
            raise UserError(f"data.table.{ours} is empty: name the column of {path} that holds it")
    ratings = stage.ratings(path, columns, unit=names.unit, least=0, most=MOST)
    log = rules.log(
        *ratings.columns(),
        n_users=ratings.n_users,
        n_items=ratings.n_items,
        where=str(path),
        unit=names.unit,
    )
    title, year, genres = _items(folder, names, stage, ratings, rules)
    users = _users(folder, names, stage, ratings, rules)
    return log, Catalog(title, year, genres, users, *ratings.all_ids())


def _items(folder: Path, names: ConfigDict, stage: Stage, ratings: StagedRatings, rules: Rules):
    years, genres = np.zeros(ratings.n_items, np.int32), LabelsBuilder()
    known = [field for field in ("title", "year", "genres") if names[field]] if names.items_file else []

    def rows() -> Iterator[tuple]:
        if not names.items_file:
            yield from ((item, 1) for item in ratings.ids("items"))
            return
        staged = stage.facts(folder / names.items_file, {"id": names.item} | {f: names[f] for f in known})
        yield from ratings.facts("items", staged, known)
        rules.count("items_left_out", ratings.left_out("items", staged))

    def titles() -> Iterator[str]:
        for number, (item, listed, *values) in enumerate(rows()):
            fact = dict(zip(known, values, strict=True))
            rules.count("items_not_listed", listed == 0)
            rules.count("items_repeated", max(0, listed - 1))
            kinds = (name.strip() for name in (fact.get("genres") or "").split("|"))
            genres.append(rules.labels([name for name in kinds if name]))
            year = (fact.get("year") or "").strip()
            if year.isascii() and year.isdigit() and len(year) == 4:
                years[number] = int(year)
            else:
                rules.count("years_unreadable", bool(year))
            yield rules.title(fact.get("title"), f"item {item}")

    title = Texts.of(titles())
    return title, years, genres.labels()


def _users(folder: Path, names: ConfigDict, stage: Stage, ratings: StagedRatings, rules: Rules) -> Traits:
    fields = list(names.demographics)
    if not names.users_file or not fields:
        return Traits({}, np.empty((ratings.n_users, 0), np.int32))
    # Numbered names: a column that somebody calls "id" must not meet ours.
    columns = {"id": names.user} | {f"d{k}": field for k, field in enumerate(fields)}
    staged = stage.facts(folder / names.users_file, columns)
    people = []
    for _, listed, *values in ratings.facts("users", staged, list(columns)[1:]):
        rules.count("users_not_listed", listed == 0)
        rules.count("users_repeated", max(0, listed - 1))
        known = {field: value for field, value in zip(fields, values, strict=True) if value}
        people.append({field: rules.label(value) for field, value in known.items()})
    rules.count("users_left_out", ratings.left_out("users", staged))
    return Traits.of(people)
