"""Every type that Parquet and JSON have, against what Python's own datetime, decimal and json make of it."""

import datetime as dt
import json

import duckdb
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import base
from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.runtime.errors import UserError

UTC = dt.UTC
NOON = int(dt.datetime(2014, 3, 5, 12, tzinfo=UTC).timestamp())
DAY = NOON - 12 * 3600


def config_of(folder, ratings: str, items: str = "", **table) -> ConfigDict:
    config = base().data
    config.update({"source": "table", "raw": str(folder), "min_likes": 1, "candidates": 2})
    config.sizes = ConfigDict({"evaluation": 0})
    config.table.update({"ratings": ratings, "items_file": items} | table)
    return config


def read(folder, ratings: str, items: str = "", **table):
    rules = Rules()
    dataset = make_dataset(config_of(folder, ratings, items, **table), rules=rules)
    return dataset, rules


def parquet(folder, name: str, **columns: str) -> str:
    """A file of one row for each of the SQL expressions of a column, which are between semicolons."""
    rows = zip(*(expressions.split("; ") for expressions in columns.values()), strict=True)
    names = ", ".join(columns)
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        connection.execute(
            f"COPY (SELECT * FROM (VALUES {values}) t({names})) TO '{folder / name}' (FORMAT parquet)"
        )
    return name


@pytest.mark.parametrize(
    ("sql", "seconds"),
    [
        ("DATE '2014-03-05'", DAY),
        ("TIMESTAMP_S '2014-03-05 12:00:00'", NOON),
        ("TIMESTAMP_MS '2014-03-05 12:00:00'", NOON),
        ("TIMESTAMP '2014-03-05 12:00:00'", NOON),
        ("TIMESTAMP_NS '2014-03-05 12:00:00'", NOON),
        ("TIMESTAMPTZ '2014-03-05 17:30:00+05:30'", NOON),
        (f"CAST({NOON} AS BIGINT)", NOON),
        (f"CAST({NOON} AS UINTEGER)", NOON),
        (f"CAST({NOON} AS DOUBLE)", NOON),
        (f"CAST({NOON}.5 AS DECIMAL(18, 3))", NOON),
        (f"'{NOON}'", NOON),
        ("'2014-03-05'", DAY),
        ("'2014-03-05T12:00:00'", NOON),
        ("'2014-03-05 12:00'", NOON),
        ("'2014-03-05T12:00:00Z'", NOON),
        ("'2014-03-05T17:30:00.25+05:30'", NOON),
        ("'2014-03-05T07:00:00-0500'", NOON),
        ("'2014-03-05 12:00:00 UTC'", NOON),
    ],
)
def test_times_of_every_type_are_instants(tmp_path, sql, seconds):
    name = parquet(tmp_path, "a.parquet", user="1", item="2", rating="3.5", time=sql)
    name = parquet(tmp_path, "a.parquet", user="1; 1", item="2; 3", rating="3.5; 5", time=f"{sql}; {sql}")
    assert read(tmp_path, name)[0].interactions.time.tolist() == [seconds] * 2


TICKS = ("001", "002", "003")
CLOCKS = {
    "text_ns": [f"2014-03-05T12:00:00.123456{k}+00:00" for k in TICKS],
    "text_offset": [f"2014-03-05T1{2 + k}:00:00.1234567{k + 1}+0{k}:00" for k in range(3)],
    "fraction": [f"{NOON}.{k}" for k in TICKS],
    "ms_fraction": [f"{NOON}000.{k}" for k in TICKS],
    "ns": [f"{NOON}123456{k}" for k in TICKS],
}


@pytest.mark.parametrize("form", CLOCKS)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_full_clock_of_a_text_orders_one_second(tmp_path, form, kind):
    unit = {"ms_fraction": "ms", "ns": "ns"}.get(form, "s")
    late, early, middle = CLOCKS[form][2], CLOCKS[form][0], CLOCKS[form][1]
    rows = [("u", "late", 5, late), ("u", "early", 4, early), ("u", "middle", 3, middle)]
    names = ("user", "item", "rating", "time")
    if kind == "csv":
        text = "".join(",".join(map(str, row)) + "\n" for row in (names, *rows))
    else:
        text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    (tmp_path / f"a.{kind}").write_text(text, encoding="utf-8")
    dataset, _ = read(tmp_path, f"a.{kind}", unit=unit)
    ids = [dataset.catalog.item_ids[k] for k in dataset.interactions.item]
    assert ids == ["early", "middle", "late"]
    assert dataset.interactions.time.tolist() == [NOON] * 3


def test_nanoseconds_of_parquet_order_one_second(tmp_path):
    times = "; ".join(f"TIMESTAMP_NS '2014-03-05 12:00:00.123456{k}'" for k in ("003", "001", "002"))
    name = parquet(tmp_path, "a.parquet", user="1; 1; 1", item="3; 1; 2", rating="5; 4; 3", time=times)
    dataset, _ = read(tmp_path, name)
    assert [dataset.catalog.item_ids[k] for k in dataset.interactions.item] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("sql", "raw_id"),
    [
        ("5", "5"),
        ("CAST(5 AS TINYINT)", "5"),
        ("CAST(18446744073709551615 AS UBIGINT)", "18446744073709551615"),
        ("CAST(5 AS DOUBLE)", "5"),
        ("CAST(5 AS FLOAT)", "5"),
        ("CAST(5 AS DECIMAL(10, 2))", "5"),
        ("'5'", "5"),
        ("'B00X'", "B00X"),
        ("'B00X'::BLOB", "B00X"),
        ("'B00X'::ENUM('B00X', 'other')", "B00X"),
        ("DATE '2014-03-05'", "2014-03-05"),
        ("TIMESTAMPTZ '2014-03-05 17:30:00+05:30'", "2014-03-05 12:00:00+00"),
        ("UUID '123e4567-e89b-12d3-a456-426614174000'", "123e4567-e89b-12d3-a456-426614174000"),
        ("true", "true"),
    ],
)
def test_ids_of_every_type(tmp_path, sql, raw_id):
    name = parquet(
        tmp_path, "a.parquet", user="1; 1", item=f"{sql}; {sql}", rating="4; 5", time=f"{NOON}; {NOON}"
    )
    dataset, _ = read(tmp_path, name)
    assert list(dataset.catalog.item_ids) == [raw_id]
    assert dataset.find_item(raw_id) == 0


@pytest.mark.parametrize("column", ["item", "rating", "time"])
@pytest.mark.parametrize("sql", ["[1]", "{'a': 1}", "MAP {'a': 1}", "INTERVAL 1 DAY"])
def test_values_that_are_not_single_are_refused_by_type(tmp_path, column, sql):
    columns = {"user": "1", "item": "2", "rating": "3", "time": str(NOON)} | {column: sql}
    name = parquet(tmp_path, "a.parquet", **columns)
    with pytest.raises(UserError, match=rf"a\.parquet: column '{column}' has type "):
        read(tmp_path, name)


@pytest.mark.parametrize("null", ["user", "item", "rating", "time"])
def test_a_null_is_located(tmp_path, null):
    columns = {"user": "1; 1", "item": "2; 3", "rating": "3; 4", "time": f"{NOON}; {NOON}"}
    first = columns[null].split("; ")[0]
    name = parquet(tmp_path, "a.parquet", **columns | {null: f"{first}; NULL"})
    with pytest.raises(UserError, match=rf"row 2: column {null} is missing"):
        read(tmp_path, name)


def test_facts_of_every_type(tmp_path):
    ratings = parquet(
        tmp_path,
        "a.parquet",
        user="1; 1; 1",
        item="1; 2; 3",
        rating="3; 4; 5",
        time="; ".join([str(NOON)] * 3),
    )
    items = parquet(
        tmp_path,
        "items.parquet",
        item="CAST(1 AS DOUBLE); 2; 3",
        title="'One'; '1984'; 'Three'",
        year="CAST(1995 AS DOUBLE); 1984; NULL",
        genres="['Action', 'Drama']; ['A|B']; NULL",
    )
    catalog = read(tmp_path, ratings, items, year="year", genres="genres")[0].catalog
    assert list(catalog.title) == ["One", "1984", "Three"] and catalog.year.tolist() == [1995, 1984, 0]
    assert list(catalog.genres) == [("Action", "Drama"), ("A|B",), ()]
    dated = parquet(
        tmp_path,
        "dated.parquet",
        item="1; 2; 3",
        title="'One'; '1984'; 'Three'",
        year="DATE '1995-03-01'; DATE '1984-01-01'; NULL",
        genres="'Action|Drama'; 'Action, Drama'; ''",
    )
    catalog = read(tmp_path, ratings, dated, year="year", genres="genres")[0].catalog
    assert catalog.year.tolist() == [1995, 1984, 0]
    assert list(catalog.genres) == [("Action", "Drama"), ("Action, Drama",), ()]


@pytest.mark.parametrize(
    ("written", "genres"),
    [
        (["Action", "Drama"], ("Action", "Drama")),
        ('["Action", "Drama"]', ("Action", "Drama")),
        ("['Action', 'Drama']", ("Action", "Drama")),  # as pandas writes a list into CSV
        ("Action|Drama", ("Action", "Drama")),
        ("[Action]", ()),
        ([{"name": "Action"}], ()),
        ([], ()),
        (None, ()),
        ("Film-Noir", ("Film-Noir",)),
    ],
)
@pytest.mark.parametrize("array", [False, True])
def test_genres_of_json(tmp_path, written, genres, array):
    log = [{"user": 1, "item": k, "rating": k, "time": NOON} for k in (4, 5)]
    items = [{"item": 4, "title": "A", "genres": written}, {"item": 5, "title": "B", "genres": "X"}]
    for name, rows in (("log.json", log), ("items.json", items)):
        text = json.dumps(rows, indent=1) + "\n" if array else "".join(json.dumps(r) + "\n" for r in rows)
        (tmp_path / name).write_text(text, encoding="utf-8")
    dataset, rules = read(tmp_path, "log.json", "items.json", genres="genres")
    assert list(dataset.catalog.genres) == [genres, ("X",)]
    unreadable = written in ("[Action]", [{"name": "Action"}])
    assert rules.counts["items_with_unreadable_categories"] == unreadable


def test_numbers_that_pandas_wrote_as_floats_are_whole(tmp_path):
    (tmp_path / "log.csv").write_text(
        f"user,item,rating,time\n7.0,10.0,4.0,{NOON}.0\n7.0,5.0,3.0,{NOON}.0\n", encoding="utf-8"
    )
    (tmp_path / "items.csv").write_text("item,title,year\n5,A,1995.0\n10,B,\n", encoding="utf-8")
    (tmp_path / "users.csv").write_text("user,age\n7,35.0\n", encoding="utf-8")
    dataset, rules = read(
        tmp_path, "log.csv", "items.csv", year="year", users_file="users.csv", demographics=("age",)
    )
    assert list(dataset.catalog.item_ids) == ["10", "5"] and list(dataset.catalog.title) == ["B", "A"]
    assert dataset.catalog.year.tolist() == [0, 1995]
    assert list(dataset.catalog.demographics) == [{"age": "35"}] and list(dataset.catalog.user_ids) == ["7"]
    assert rules.counts["columns_of_whole_numbers_with_a_fraction"] == 4  # ids, years, ages


def test_ids_are_numbers_only_where_all_are(tmp_path):
    (tmp_path / "log.csv").write_text(
        f"user,item,rating,time\n7,1.0,4,{NOON}\n7,1.5,3,{NOON}\n7,1,5,{NOON}\n", encoding="utf-8"
    )
    assert list(read(tmp_path, "log.csv")[0].catalog.item_ids) == ["1", "1.0", "1.5"]


def test_blanks_around_ids_are_taken_off_and_counted(tmp_path):
    (tmp_path / "log.csv").write_text(
        f"user,item,rating,time\n 7 ,5,4,{NOON}\n7, 5\t,3,{NOON}\n7,\u00a06,3,{NOON}\n", encoding="utf-8"
    )
    dataset, rules = read(tmp_path, "log.csv")
    assert (list(dataset.catalog.user_ids), list(dataset.catalog.item_ids)) == (["7"], ["5", "6"])
    assert (rules.counts["ids_with_blanks_around"], rules.counts["ratings_repeated"]) == (3, 1)


def test_real_time_zones_of_another_writer_are_the_same_instants(tmp_path):
    """A zone that has summer time, converted by Python's own zone data."""
    zone = dt.timezone(dt.timedelta(hours=-4))
    moments = [dt.datetime(2014, 7, 1, 8, 30, second, 999_999, tzinfo=zone) for second in (5, 3)]
    lines = "".join(f"u,i{k},{4 + k},{at.isoformat()}\n" for k, at in enumerate(moments))
    (tmp_path / "log.csv").write_text("user,item,rating,time\n" + lines, encoding="utf-8")
    log = read(tmp_path, "log.csv")[0].interactions
    assert log.time.tolist() == sorted(int(at.timestamp()) for at in moments)
    assert np.diff(log.time)[0] == 2
