"""Text tables of every form that others write, and what is detected of them."""

import gzip

import pytest

from configs.base import base
from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.data.text_format import TextForm, detect
from r2rec_jax.runtime.errors import UserError

NOON = 1394020800
ROWS = [("u1", "Amélie", 5, NOON), ("u1", "Ran", 4, NOON + 1), ("u2", "Œuvre", 3, NOON + 2)]
NAMED, PLACED = ("user", "item", "rating", "time"), ("1", "2", "3", "4")


def lines(separator: str, header: tuple[str, ...] = NAMED) -> str:
    rows = [header, *ROWS] if header else ROWS
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def read(folder, content: bytes, file: str = "log.csv", names=NAMED, items: str = "", **table):
    (folder / file).write_bytes(gzip.compress(content) if file.endswith(".gz") else content)
    config = base().data
    config.update({"source": "table", "raw": str(folder), "min_likes": 1, "candidates": 2})
    config.sizes = {"evaluation": 0}
    config.table.update({"ratings": file, "items_file": items} | dict(zip(NAMED, names, strict=True)) | table)
    return make_dataset(config, rules=Rules())


def check(dataset) -> None:
    ids = [dataset.catalog.item_ids[k] for k in dataset.interactions.item]
    assert ids == ["Amélie", "Ran", "Œuvre"]
    assert dataset.interactions.rating.tolist() == [5, 4, 3]
    assert dataset.interactions.time.tolist() == [NOON, NOON + 1, NOON + 2]


@pytest.mark.parametrize("header", [NAMED, ()])
@pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::", " "])
@pytest.mark.parametrize("file", ["log.csv", "log.tsv", "log.dat", "log.txt", "u.data", "LOG.CSV"])
def test_separators_and_headers(tmp_path, file, separator, header):
    check(read(tmp_path, lines(separator, header).encode(), file, NAMED if header else PLACED))


def test_places_also_name_columns_under_a_header(tmp_path):
    check(read(tmp_path, lines(",").encode(), names=PLACED))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("header", [NAMED, ()])
@pytest.mark.parametrize("file", ["log.csv", "log.csv.gz"])
def test_encodings(tmp_path, file, encoding, header):
    check(read(tmp_path, lines(",", header).encode(encoding), file, NAMED if header else PLACED))


def test_what_is_detected_is_logged(tmp_path, caplog):
    with caplog.at_level("INFO", "absl"):
        read(tmp_path, lines(";").encode("cp1252"))
    assert "log.csv: separator ';', header yes, encoding cp1252, quotes '\"'" in caplog.text


def test_recbole_atomic_files(tmp_path):
    header = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    items = 'item_id:token\tmovie_title:token_seq\tclass:token_seq\nAmélie\t"Amélie" de\tRomance Comedy\n'
    (tmp_path / "ml.item").write_text(items, encoding="utf-8")
    names = ("user_id", "item_id", "rating", "timestamp")
    table = {"title": "movie_title", "genres": "class"}
    content = lines("\t", header).encode()
    dataset = read(tmp_path, content, "ml.inter", names, "ml.item", **table)
    check(dataset)
    assert dataset.catalog.title[0] == '"Amélie" de' and dataset.catalog.genres[0] == ("Romance", "Comedy")
    check(read(tmp_path, content, "ml.inter", header))


def test_the_files_of_movielens_1m_as_a_table(tmp_path):
    movies = '1::"X" of Amélie (2001)::Comedy|War\n2::B::Drama\n'
    (tmp_path / "movies.dat").write_bytes(movies.encode("latin-1"))
    ratings = f"7::1::5::{NOON}\n7::2::3::{NOON}\n".encode()
    table = {"title": "2", "genres": "3", "items_id": "1"}
    dataset = read(tmp_path, ratings, "ratings.dat", PLACED, "movies.dat", **table)
    assert list(dataset.catalog.title) == ['"X" of Amélie (2001)', "B"]
    assert list(dataset.catalog.genres) == [("Comedy", "War"), ("Drama",)]


@pytest.mark.parametrize(
    ("content", "table", "message"),
    [
        (lines(",").encode() + "u3,\xe9,3,5\n".encode("latin-1"), {}, "is UTF-8 except near byte"),
        (lines(",").encode("cp1252") + b"u\x01,x,3,5\n", {}, "is not a text file"),
        (lines(",").encode("utf-16-le"), {}, "is not a text file"),
        (lines(",").encode(), {"encoding": "ascii"}, "is not in ascii .about byte"),
        (lines(",").encode(), {"encoding": "ebcdic"}, "is not a Python codec name"),
        (lines(",").encode(), {"separator": ";"}, r"csv:1: no column 'user' among 'user,item,rating,time'"),
        (lines(",").encode(), {"header": "no"}, r"no column 'user' among '1', '2', '3', '4'"),
        (lines(",", ()).encode(), {}, r"log\.csv:1: no column 'user' and no header: use column numbers"),
        (lines(",").encode(), {"quote": "*"}, r"data\.table\.quote"),
        (lines(",").encode(), {"header": "maybe"}, r"data\.table\.header"),
        (lines(",").encode(), {"separator": ",,,,,"}, r"data\.table\.separator"),
        (lines(",").encode() + b'u3,"x,3,5\n', {}, r"log\.csv:5: "),
        (b"\n", {}, r"log\.csv:1: "),
        # A header that Windows has written over rows that it has not.
        (lines(",").encode().replace(b"\n", b"\r\n", 1), {}, "it mixes Windows"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, content, table, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, content, **table)
    assert "\n" not in str(error.value)


def test_what_is_set_is_not_detected(tmp_path):
    check(read(tmp_path, lines(";").encode("utf-16-le"), separator=";", header="yes", encoding="utf-16-le"))
    loose = lines(",").encode() + f'u3,"x,3,{NOON}\n'.encode()
    assert '"x' in read(tmp_path, loose, quote="none").catalog.item_ids


def test_titles_with_commas_do_not_decide_the_separator(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item;title;genres\n1;Good, Bad, Ugly;A|B\n2;x, y, z;A|B\n", encoding="utf-8")
    form, names, _ = detect(path, TextForm(), ["item", "title", "genres"])
    assert (form.separator, names) == (";", ["item", "title", "genres"])
