"""Every source that goes through duckdb, against plain Python over Python's own csv, json and gzip."""

import ast
import csv
import gzip
import io
import json
import os

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2rec_jax.data.split_audit import audit
from r2rec_jax.runtime.errors import UserError


def rows_of(path, parse=json.loads) -> list[dict]:
    """The rows of a raw file as dicts of text, by the standard library."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if path.suffix == ".parquet":
        raise ValueError("no standard library reads Parquet")
    if ".json" in path.name:
        return [parse(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text), delimiter="\t" if ".tsv" in path.name else ","))


def columns_of(source: str) -> tuple[str, str, str, str]:
    return {
        "amazon-2023": ("user_id", "parent_asin", "rating", "timestamp"),
        "amazon-2018": ("reviewerID", "asin", "overall", "unixReviewTime"),
        "amazon-2014": ("reviewerID", "asin", "overall", "unixReviewTime"),
        "ml-25m": ("userId", "movieId", "rating", "timestamp"),
        "table": ("who", 'a "thing"', "stars", "at; --"),
    }[source]


def expected_log(raw) -> list[tuple]:
    """(user, item, rating, time) sorted by user and time; ties in the file's order, ids by sorted order."""
    if raw.ratings.suffix == ".parquet":
        table = duckdb.sql(f"FROM read_parquet('{raw.ratings}')")
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
    else:
        rows = rows_of(raw.ratings)
    who, what, stars, at = columns_of(raw.config.source)
    number = {
        name: {raw_id: k for k, raw_id in enumerate(sorted({r[name] for r in rows}))} for name in (who, what)
    }
    seconds = 1000 if raw.config.source == "amazon-2023" else 1
    log = [(number[who][r[who]], number[what][r[what]], float(r[stars]), int(r[at]) // seconds) for r in rows]
    return sorted(log, key=lambda row: (row[0], row[3]))


def test_the_log_is_what_plain_python_reads(raw):
    dataset, _ = raw.read()
    log = dataset.interactions
    columns = (log.user.tolist(), log.item.tolist(), log.rating.tolist(), log.time.tolist())
    assert list(zip(*columns, strict=True)) == expected_log(raw)
    assert (log.n_users, log.n_items) == (3, 5)
    audit(dataset)


def test_the_catalogue_and_its_rules(raw):
    dataset, counts = raw.read()
    catalog = dataset.catalog
    assert list(catalog.title) == ["Ran & Dom", 'Say "hi", ok', "Amélie", "item I4", "item I5"]
    assert counts.pop("items_left_out") == 1  # I9 is listed, and nobody rated it
    assert counts.pop("items_not_listed") == 1 and counts.pop("titles_missing") == 2
    assert counts.pop("titles_with_html_entities") == 1
    if raw.config.source == "table":
        assert counts.pop("users_not_listed") == 1
        assert list(catalog.demographics) == [{"city": "Rome", "id": "7"}, {"id": "8"}, {}]
    else:
        assert list(catalog.demographics) == [{}] * 3
    assert not counts
    kinds = {
        "amazon-2023": ("Games & Co", "Dice"),
        "amazon-2018": ("Games & Co", "Dice"),
        "amazon-2014": ("Games & Co", "Dice", "Wood"),
    }.get(raw.config.source, ("Comedy", "War"))
    assert list(catalog.genres) == [kinds] * 4 + [()]
    years = [0] * 5 if raw.config.source.startswith("amazon") else [1999, 1999, 1999, 1999, 0]
    if raw.config.source == "ml-25m":
        years[3] = 0  # its year is in the title, which is missing
    assert catalog.year.tolist() == years


def test_threads_and_memory_change_nothing(raw, monkeypatch):
    first, _ = raw.read()
    connect = duckdb.connect
    monkeypatch.setattr(
        duckdb, "connect", lambda path, config: connect(path, config=config | {"threads": "7"})
    )
    again, _ = raw.read()
    for name in ("user", "item", "rating", "time"):
        assert np.array_equal(getattr(first.interactions, name), getattr(again.interactions, name))
    assert np.array_equal(np.array(first.split.candidates), np.array(again.split.candidates))


def test_unpacked_files_of_amazon_are_found(make_raw):
    raw = make_raw("amazon-2023")
    expected, _ = raw.read()
    for path in (raw.ratings, raw.items):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert np.array_equal(raw.read()[0].interactions.item, expected.interactions.item)


def test_times_finer_than_seconds_order_one_second(make_raw):
    raw = make_raw("amazon-2023")
    rows = [
        {"user_id": "U", "parent_asin": f"I{k}", "rating": 5, "timestamp": 1_600_000_000_900 - k}
        for k in range(4)
    ]
    raw.ratings.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    raw.config.sizes = {"evaluation": 0}
    log = raw.read()[0].interactions
    assert log.item.tolist() == [3, 2, 1, 0]
    assert set(log.time.tolist()) == {1_600_000_000}


def test_dates_of_parquet_become_seconds(make_raw):
    raw = make_raw("parquet")
    expected, _ = raw.read()
    duckdb.sql(
        f"""COPY (SELECT * REPLACE (make_timestamp("at; --" * 1000000::BIGINT) AS "at; --")
        FROM read_parquet('{raw.ratings}')) TO '{raw.ratings}.new' (FORMAT parquet)"""
    )
    os.replace(f"{raw.ratings}.new", raw.ratings)
    for unit in ("s", "ms", "us"):
        raw.config.table.unit = unit
        assert raw.read()[0].interactions.time.tolist() == expected.interactions.time.tolist()


def test_ties_at_random_move_only_ties(make_raw):
    raw = make_raw("csv")
    lines = raw.ratings.read_text().splitlines()
    tied = [lines[0]] + [f"x,U{u},I{i},5,1262304000" for u in range(3) for i in range(20)]
    raw.ratings.write_text("\n".join(tied) + "\n")
    raw.config.sizes = {"evaluation": 0}
    first = raw.read()[0].interactions
    raw.config.ties = "random"
    orders = []
    for seed in (1, 1, 2):
        raw.config.seed = seed
        log = raw.read()[0].interactions
        assert np.array_equal(log.user, first.user)
        orders.append(log.item.tolist())
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != first.item.tolist()


def test_python_literals_of_2014_equal_the_same_items_as_json(make_raw):
    raw = make_raw("amazon-2014")
    expected, _ = raw.read()
    items = rows_of(raw.items, ast.literal_eval)
    raw.items.write_bytes(gzip.compress("\n".join(map(json.dumps, items)).encode()))
    again, _ = raw.read()
    assert list(again.catalog.title) == list(expected.catalog.title)
    assert list(again.catalog.genres) == list(expected.catalog.genres)


def test_genres_without_end_are_cut_and_counted(make_raw):
    raw = make_raw("amazon-2023")
    kinds = ["Toys", "y" * 5000, *(f"kind {k}" for k in range(200))]
    raw.items.write_bytes(
        gzip.compress(json.dumps({"parent_asin": "I1", "title": "T", "categories": kinds}).encode())
    )
    dataset, counts = raw.read()
    assert dataset.catalog.genres[0] == ("y" * 300, *(f"kind {k}" for k in range(49)))
    assert counts["labels_cut"] == counts["items_with_many_genres"] == 1


def test_a_literal_of_megabytes_is_not_parsed_as_python(make_raw):
    raw = make_raw("amazon-2014")
    raw.items.write_bytes(gzip.compress(b"[" + b"1," * (1 << 20) + b"'']"))
    with pytest.raises(UserError, match=r"meta_Toys.*:1: not an item as JSON or a Python literal"):
        raw.read()


def test_items_listed_twice_and_long_titles(make_raw):
    raw = make_raw("amazon-2023")
    items = [
        {"parent_asin": "I1", "title": "First", "categories": ["Toys"]},
        {"parent_asin": "I1", "title": "Second"},
        {"parent_asin": "I2", "title": "x" * 10_000_000, "categories": []},
        {"parent_asin": "I3", "title": "Am\ufffdlie", "categories": "Toys"},
        {"parent_asin": "I4", "title": " \t "},
        {"parent_asin": "I5", "title": "AT&T &notes &#x1F600; &amp;amp;", "categories": None},
    ]
    raw.items.write_bytes(gzip.compress("\n".join(map(json.dumps, items)).encode()))
    dataset, counts = raw.read()
    titles = ["First", "x" * 300, "Am\ufffdlie", "item I4", "AT&T &notes 😀 &amp;"]
    assert list(dataset.catalog.title) == titles
    assert counts == {
        "items_repeated": 1,
        "titles_cut": 1,
        "titles_with_lost_characters": 1,
        "titles_missing": 1,
        "titles_with_html_entities": 1,
        "items_with_unreadable_categories": 1,
    }


VALUES = st.one_of(
    st.none(), st.text(max_size=8), st.integers(), st.floats(), st.lists(st.integers(), max_size=2)
)
NAMES = ("who", 'a "thing"', "stars", "at; --")
GOOD = st.fixed_dictionaries(
    {"who": st.sampled_from("ab"), 'a "thing"': st.sampled_from("xyz"), "stars": st.integers(0, 5)}
    | {"at; --": st.integers(1_300_000_000, 1_300_000_100)}
)
ROWS = st.lists(st.one_of(GOOD, st.dictionaries(st.sampled_from(NAMES), VALUES)), max_size=5)
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(raw) -> None:
    """Reads, or raises UserError of one line; anything else is a fault."""
    raw.config.sizes = {"evaluation": 0}
    try:
        dataset, _ = raw.read()
    except UserError as error:
        assert "\n" not in str(error) and str(raw.ratings) in str(error)
    else:
        assert len(dataset.interactions)
        audit(dataset)


@pytest.mark.parametrize("source", ["jsonl", "csv"])
@QUIET
@given(rows=ROWS)
def test_arbitrary_fields_are_read_or_refused(make_raw, source, rows):
    raw = make_raw(source)
    if source == "jsonl":
        raw.ratings.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with open(raw.ratings, "w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            writer = csv.DictWriter(file, NAMES)
            writer.writeheader()
            writer.writerows(rows)
    read_or_refuse(raw)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["jsonl", "jsonl.gz", "csv", "csv.gz", "parquet"])
@QUIET
@given(data=st.data())
def test_arbitrary_damage_is_read_or_refused(make_raw, source, data):
    raw = make_raw(source)
    content = bytearray(raw.ratings.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where : where + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=30))
    raw.ratings.write_bytes(content)
    read_or_refuse(raw)
