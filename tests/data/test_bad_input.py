"""Every bad input of every kind of file: one line that names the file, and nothing else happens."""

import csv
import gzip
import io
import json
import random

import duckdb
import pytest

from r2rec_jax.runtime.errors import UserError

NOISE = random.Random(0).randbytes(5000)


def empty(_):
    return b""


def binary(_):
    return NOISE


def zeros(_):
    return bytes(5000)


def halved(content):
    end = len(content) // 2
    while b"\n" in content[end - 4 : end + 4]:  # a file cut between two lines is whole to any reader
        end -= 1
    return content[:end]


DAMAGES = (empty, binary, zeros, halved)


def refused(raw, path, *named):
    before = sorted(raw.ratings.parent.iterdir())
    with pytest.raises(UserError) as caught:
        raw.read()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for text in (str(path), *named):
        assert text in message, message
    assert sorted(raw.ratings.parent.iterdir()) == before


def damaged(path, damage, inside):
    """Applies `damage` to the file, or to what the gzip holds."""
    content = path.read_bytes()
    if inside and path.suffix == ".gz":
        path.write_bytes(gzip.compress(damage(gzip.decompress(content))))
    else:
        path.write_bytes(damage(content))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["ratings", "items"])
def test_damaged_files(raw, damage, which):
    path = getattr(raw, which)
    damaged(path, damage, inside=False)
    refused(raw, path)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("source", ["amazon-2023", "amazon-2018", "amazon-2014", "csv.gz", "jsonl.gz"])
def test_damage_inside_the_gzip(make_raw, source, damage):
    raw = make_raw(source)
    damaged(raw.ratings, damage, inside=True)
    refused(raw, raw.ratings)


@pytest.mark.parametrize("which", ["ratings", "items"])
def test_missing_files(raw, which):
    path = getattr(raw, which)
    path.unlink()
    fetch = raw.config.source != "table"
    refused(raw, raw.ratings.parent, *(["curl"] if fetch else ["missing"]))


def columns(raw) -> dict[str, str]:
    return {
        "amazon-2023": {"user": "user_id", "rating": "rating", "time": "timestamp"},
        "ml-25m": {"user": "userId", "rating": "rating", "time": "timestamp"},
        "table": {"user": "who", "rating": "stars", "time": "at; --"},
    }.get(raw.config.source, {"user": "reviewerID", "rating": "overall", "time": "unixReviewTime"})


def rewrite(raw, change):
    """Applies `change(rows)` to the list of dicts that the ratings file holds, in whatever form."""
    path = raw.ratings
    if path.suffix == ".parquet":
        table = duckdb.sql(f"FROM read_parquet('{path}')")
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
        rows = change(rows)
        rows = [{name: None if value is None else str(value) for name, value in row.items()} for row in rows]
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in rows[0])
        connection = duckdb.connect()
        connection.execute(
            f"CREATE TABLE t ({names.replace(', ', ' VARCHAR, ')} VARCHAR)",
        )
        connection.executemany(
            f"INSERT INTO t VALUES ({', '.join('?' * len(rows[0]))})", [list(row.values()) for row in rows]
        )
        connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")
        return
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    if ".json" in path.name:
        text = "".join(
            json.dumps(row) + "\n" for row in change([json.loads(line) for line in text.splitlines()])
        )
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        rows = change(list(csv.DictReader(io.StringIO(text), delimiter=delimiter)))
        out = io.StringIO()
        writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.mark.parametrize("value", ["-1", "NaN", "inf", "good", "", None, "1e400", "1000001"])
def test_bad_ratings_are_located(raw, value):
    name = columns(raw)["rating"]
    rewrite(raw, lambda rows: [row | {name: value} if k == 7 else row for k, row in enumerate(rows)])
    refused(raw, raw.ratings, "row 8", name)


@pytest.mark.parametrize("value", ["", "  ", None, "x" * 201])
def test_bad_users_are_located(raw, value):
    name = columns(raw)["user"]
    rewrite(raw, lambda rows: [row | {name: value} if k == 2 else row for k, row in enumerate(rows)])
    refused(raw, raw.ratings, "row 3", name)


@pytest.mark.parametrize("value", ["yesterday", None, "nan", "99999999999999999999"])
def test_bad_times_are_located(raw, value):
    name = columns(raw)["time"]
    rewrite(raw, lambda rows: [row | {name: value} if k == 0 else row for k, row in enumerate(rows)])
    refused(raw, raw.ratings, "row 1", name)


def test_wrong_columns(raw):
    name = columns(raw)["user"]
    rewrite(raw, lambda rows: [{f"{key} no": value for key, value in row.items()} for row in rows])
    refused(raw, raw.ratings, name)


def test_a_clock_in_another_unit_is_named(raw):
    name = columns(raw)["time"]
    in_ms = raw.config.source == "amazon-2023"
    factor = 0.001 if in_ms else 1000
    rewrite(raw, lambda rows: [row | {name: round(int(row[name]) * factor)} for row in rows])
    refused(raw, raw.ratings, "they look like 's'" if in_ms else "they look like 'ms'")


def test_times_of_no_unit(raw):
    rewrite(raw, lambda rows: [row | {columns(raw)["time"]: 7} for row in rows])
    refused(raw, raw.ratings, "12 of 12 times")


def test_a_few_impossible_times_are_left_out_and_counted(raw):
    name, ids = columns(raw), iter(range(1000))

    def change(rows):
        many = [row | {name["user"]: f"V{next(ids)}"} for row in rows for _ in range(20)]
        return [*many, rows[0] | {name["time"]: "0"}, rows[1] | {name["time"]: "-5"}]

    rewrite(raw, change)
    raw.config.sizes, raw.config.table.users_file = {"evaluation": 0}, ""
    dataset, counts = raw.read()
    assert counts["ratings_with_impossible_time"] == 2
    assert len(dataset.interactions) == 240


@pytest.mark.parametrize("source", ["amazon-2023", "amazon-2018", "jsonl", "ml-25m"])
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding(make_raw, source, encoding):
    raw = make_raw(source)
    path = raw.ratings if source.startswith("amazon") else raw.items
    if source == "jsonl":
        path = raw.ratings
        path.write_text(path.read_text(encoding="utf-8").replace('"x"', '"é"'), encoding="utf-8")
    damaged(path, lambda content: content.decode().encode(encoding), inside=True)
    refused(raw, path)


@pytest.mark.parametrize("source", ["csv", "tsv", "ml-25m"])
def test_a_table_without_a_last_line_break_may_be_cut(make_raw, source):
    raw = make_raw(source)
    raw.ratings.write_bytes(raw.ratings.read_bytes()[:-1])
    refused(raw, raw.ratings, "line break", "truncated")


@pytest.mark.parametrize("cut", [-1, -4, -8, -20])
def test_a_gzip_that_ends_early(make_raw, cut):
    raw = make_raw("amazon-2023")
    raw.ratings.write_bytes(raw.ratings.read_bytes()[:cut])
    refused(raw, raw.ratings, "truncated")


@pytest.mark.parametrize("source", ["jsonl", "csv"])
def test_a_line_without_end_is_bounded(make_raw, source):
    raw = make_raw(source)
    with open(raw.ratings, "a") as file:
        file.write('{"who": "' + "x" * 70_000_000 + "\n" if source == "jsonl" else "x" * 70_000_000 + "\n")
    refused(raw, raw.ratings)


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("jsonl", 13, '{"who": oops}\n'),
        ("jsonl", 13, "[1, 2]\n"),
        ("jsonl", 13, '{"who": "a", "who": "b"}\n'),
        ("csv", 14, "x,U1,I1,5\n"),
        ("csv", 14, "x,U1,I1,5,1,2\n"),
        ("csv", 14, 'x,"U1,I1,5,1\n'),
    ],
)
def test_lines_that_cannot_be_parsed_are_located(make_raw, source, line, text):
    raw = make_raw(source)
    with open(raw.ratings, "a") as file:
        file.write(text)
    refused(raw, f"{raw.ratings}:{line}:")


@pytest.mark.parametrize("line", ["{'asin': 'I1', 'title': open('x')}\n", "{'asin'\n", "[1]\n", "7\n", "\n"])
def test_python_lines_of_2014_are_data_not_code(make_raw, line):
    raw = make_raw("amazon-2014")
    damaged(raw.items, lambda content: content + line.encode(), inside=True)
    refused(raw, f"{raw.items}:6:")


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("user", "", "data.table.user is empty"),
        ("rating", "starz", "no column 'starz'"),
        ("unit", "hours", "use s, ms, us"),
        ("ratings", "log.xlsx", "log.xlsx"),
        ("ratings", "absent.csv", "absent.csv is missing"),
        ("title", "absent", "no column 'absent'"),
        ("demographics", ("city", "age"), "no column 'age'"),
    ],
)
def test_settings_of_a_table(make_raw, setting, value, named):
    raw = make_raw("csv")
    (raw.ratings.parent / "log.xlsx").write_bytes(b"x")
    raw.config.table[setting] = value
    refused(raw, "", named)


@pytest.mark.parametrize(("field", "value"), [("source", "ml-2m"), ("ties", "none"), ("negatives", "easy")])
def test_unknown_choices(make_raw, field, value):
    raw = make_raw("csv")
    raw.config[field] = value
    refused(raw, repr(value))


def test_a_header_named_twice(make_raw):
    raw = make_raw("csv")
    raw.ratings.write_text(raw.ratings.read_text().replace("extra,", "who,", 1))
    refused(raw, raw.ratings, "more than one column 'who'")


def csv_file(path, *rows) -> None:
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


LISTED = [(f"I{i}", f"Film {i}", 1990 + i, "Comedy") for i in range(1, 6)]
ITEMS = ('"a ""thing"""', "name", "year", "kinds")


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ("item-{0};{1};{2};{3}", "its ids look like 'item-I"),
        ("{0}; ;{2};{3}", "titles_missing 5 of 5"),
        ("{0};{1};MCM{2};{3}", "years_unreadable 5 of 5"),
        ("{0};{1};{2};[{3}]", "items_with_unreadable_categories 5 of 5"),
    ],
)
def test_facts_of_which_none_can_be_used(make_raw, form, named):
    raw = make_raw("csv")
    csv_file(raw.items, ITEMS, *(form.format(*row).split(";") for row in LISTED))
    refused(raw, raw.items, named)


def test_users_of_whom_none_rated(make_raw):
    raw = make_raw("csv")
    csv_file(raw.users.with_suffix(".csv"), ("who", "city", "id"), ("X1", "Rome", 1), ("X2", "Pisa", 2))
    raw.config.table.users_file = "people.csv"
    refused(raw, "people.csv", "none of the users", "like 'X", "like 'U")


@pytest.mark.parametrize("unlisted", [1, 2])
def test_shares_above_a_tenth_are_warned_of(make_raw, caplog, unlisted):
    """Of 11 items one that the file lacks is 9%, two are 18%."""
    raw = make_raw("csv")
    rows = [("x", "U1", f"I{k}", 3 + k % 3, 1262304000 + k) for k in range(11)]
    csv_file(raw.ratings, ("extra", "who", '"a ""thing"""', "stars", "at; --"), *rows)
    csv_file(raw.items, ITEMS, *((f"I{k}", f"Film {k}", "1999", "A") for k in range(unlisted, 11)))
    raw.config.sizes = {"evaluation": 0}
    _, counts = raw.read()
    assert counts["items_not_listed"] == unlisted
    assert (f"things.csv: items_not_listed {unlisted} of 11" in caplog.text) == (unlisted == 2)


def test_items_of_one_title_and_year_are_counted(make_raw):
    """Prompts show them as "Heat (version 1)": not silently."""
    raw = make_raw("csv")
    csv_file(
        raw.ratings,
        ("extra", "who", '"a ""thing"""', "stars", "at; --"),
        *(("x", "U1", f"I{k}", 1 + k, 1262304000 + k) for k in range(5)),
    )
    films = (("Heat", "1995"), ("Heat", "1995"), ("Heat", "1986"), ("Emma", ""), ("Emma", ""))
    csv_file(raw.items, ITEMS, *((f"I{k}", title, year, "A") for k, (title, year) in enumerate(films)))
    raw.config.sizes = {"evaluation": 0}
    assert raw.read()[1]["items_told_apart_by_a_version"] == 4


def test_a_file_in_place_of_a_folder(make_raw):
    raw = make_raw("csv")
    raw.config.raw = str(raw.ratings)
    refused(raw, raw.ratings, "is a file: set it to the folder", "data.table.ratings")
    raw.config.source = "ml-1m"
    refused(raw, raw.ratings, "is a file: set it to the folder")


def test_messages_name_what_is_there(make_raw):
    raw = make_raw("csv")
    raw.config.table.ratings = "log.xlsx"
    raw.ratings.with_name("log.xlsx").write_bytes(b"x")
    refused(raw, "log.xlsx", "unknown kind of file: use .jsonl")
    raw.config.table.ratings = "log.csv"
    rewrite(raw, lambda rows: [row | {"stars": -1} for row in rows])
    refused(raw, raw.ratings, "a number from 0 to 1,000,000")
