"""A small data set, and small raw files of every source, written by Python's own csv, json and gzip."""

import csv
import dataclasses
import gzip
import io
import json
from pathlib import Path

import duckdb
import pytest
from ml_collections import ConfigDict

from configs.base import base
from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.data.sources import make_dataset


@pytest.fixture(scope="session")
def small_dataset() -> Dataset:
    log, catalog = generate(seed=3, users=80, items=64, ratings_per_user=15)
    sizes = {"sft": 20, "grpo": 15, "validation": 5, "evaluation": 20}
    return Dataset("small", log, catalog, split(log, seed=1, sizes=sizes))


@dataclasses.dataclass(frozen=True)
class Raw:
    """Small raw files of one source and the config that reads them."""

    config: ConfigDict
    ratings: Path
    items: Path | None
    users: Path | None = None

    def read(self, staging: Path | None = None):
        """The data set and the counts."""
        rules = Rules()
        return make_dataset(self.config, rules=rules, staging=staging), rules.counts


# user, item, rating, seconds since 2010; in the file's order, which is sorted neither by time nor by
# id, and which decides between equal times.
LOG = [
    (user, item, rating, user * 50 + item % 2)
    for user in (3, 1, 2)
    for item, rating in ((5, 4), (1, 5), (4, 2), (2, 5), (3, 3))
    if (user, item) not in ((2, 5), (1, 2), (3, 3))
]
START = 1_262_304_000
TITLES = {1: "Ran &amp; Dom", 2: 'Say "hi", ok', 3: "Amélie", 4: "", 9: "Nobody rated it"}


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def _json_lines(path: Path, rows: list[dict]) -> Path:
    return _text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _csv(path: Path, header: list[str], rows: list) -> Path:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", delimiter="\t" if ".tsv" in path.name else ",")
    writer.writerows([header, *rows])
    return _text(path, out.getvalue())


def write_raw(folder: Path, source: str) -> Raw:
    """The ratings LOG and the items TITLES in the form of `source`, a `data.source` or a kind of table."""
    config = base().data
    config.update({"source": source, "raw": str(folder), "category": "Toys", "min_likes": 2, "candidates": 2})
    config.sizes = ConfigDict({"evaluation": 2})
    if source == "amazon-2023":
        named = ("user_id", "parent_asin", "rating", "timestamp")
        names, ticks = ("Toys.jsonl.gz", "meta_Toys.jsonl.gz"), 1000
    elif source in ("amazon-2018", "amazon-2014"):
        named = ("reviewerID", "asin", "overall", "unixReviewTime")
        names, ticks = ("Toys_5.json.gz", "meta_Toys.json.gz"), 1
        names = names if source == "amazon-2018" else ("reviews_Toys_5.json.gz", "meta_Toys.json.gz")
    if source.startswith("amazon"):
        rows = [
            dict(zip(named, (f"U{u}", f"I{i}", float(r), (START + t) * ticks), strict=True))
            | {"text": "é" * u}
            for u, i, r, t in LOG
        ]
        items = [{named[1]: f"I{i}", "title": title, "price": None} for i, title in TITLES.items()]
        for item in items:
            kinds = ["Toys", "Games &amp; Co", "Dice"]
            item["category" if source == "amazon-2018" else "categories"] = (
                [kinds, ["Toys", "Wood"]] if source == "amazon-2014" else kinds
            )
        ratings = _json_lines(folder / names[0], rows)
        if source == "amazon-2014":
            return Raw(config, ratings, _text(folder / names[1], "".join(f"{item!r}\n" for item in items)))
        return Raw(config, ratings, _json_lines(folder / names[1], items))
    rows = [(f"U{u}", f"I{i}", r, START + t) for u, i, r, t in LOG]
    if source.startswith("ml-"):
        rows = [(u, i, r + 0.5 if r < 5 else 5.0, t) for u, i, r, t in rows]
        header = ["userId", "movieId", "rating", "timestamp"]
        items = [(f"I{i}", title and f"{title} (1999)", "Comedy|War") for i, title in TITLES.items()]
        items[-1] = (*items[-1][:2], "(no genres listed)")
        movies = _csv(folder / "movies.csv", ["movieId", "title", "genres"], items)
        return Raw(config, _csv(folder / "ratings.csv", header, rows), movies)
    config.source, config.table.ratings = "table", f"log.{source}"
    config.table.update({"user": "who", "item": 'a "thing"', "rating": "stars", "time": "at; --"})
    header, path = ["extra", "who", 'a "thing"', "stars", "at; --"], folder / config.table.ratings
    if source == "parquet":
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in header)
        values = ", ".join(str(("x", *row)) for row in rows)
        folder.mkdir(parents=True, exist_ok=True)
        duckdb.sql(f"SELECT * FROM (VALUES {values}) t({names})").write_parquet(str(path))
    elif source.startswith("jsonl"):
        _json_lines(path, [dict(zip(header, ("x", *row), strict=True)) for row in rows])
    else:
        _csv(path, header, [("x", *row) for row in rows])
    config.table.update({"items_file": "things.csv", "users_file": "people.tsv", "year": "year"})
    config.table.update({"genres": "kinds", "title": "name", "demographics": ("city", "id")})
    items = [(f"I{i}", title, 1999, "Comedy|War") for i, title in TITLES.items()]
    things = _csv(folder / "things.csv", ['a "thing"', "name", "year", "kinds"], items)
    people = _csv(folder / "people.tsv", ["id", "who", "city"], [("7", "U1", "Rome"), ("8", "U2", "")])
    return Raw(config, path, things, people)


TABLES = ("csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "parquet")
STAGED = ("amazon-2023", "amazon-2018", "amazon-2014", "ml-25m", *TABLES)


@pytest.fixture(params=STAGED)
def raw(request, tmp_path) -> Raw:
    """Every source that goes through duckdb, one after another."""
    return write_raw(tmp_path / "raw", request.param)


@pytest.fixture
def make_raw(tmp_path):
    """`make_raw(source)` writes the files of one source."""
    return lambda source: write_raw(tmp_path / "raw", source)
