import os
from pathlib import Path

import numpy as np
import pytest
from absl import logging

from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.movielens import read_ml1m, read_ml100k, title_and_year
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.data.split_audit import audit
from r2rec_jax.runtime.errors import UserError

MOVIES = (
    "1::Toy Story (1995)::Animation|Children's|Comedy\n"
    "7::Sabrina, The (1995)::Comedy\n"
    "9::Associate, The (L'Associé)(1982)::Comedy\n"
    "12::Untold::Drama\n"
    "3952::2001: A Space Odyssey (1968)::Sci-Fi\n"
)
USERS = "1::F::1::10::48067\n2::M::56::16::70072\n6::M::25::11::55117-1234\n"
RATINGS = "6::1::5::978300760\n1::7::3::978302109\n1::1::4::978302109\n6::9::1::978300275\n"


@pytest.fixture
def folder(tmp_path):
    for name, text in (("movies", MOVIES), ("users", USERS), ("ratings", RATINGS)):
        (tmp_path / f"{name}.dat").write_bytes(text.encode("latin-1"))
    return tmp_path


def test_a_small_folder_is_read_field_by_field(folder):
    log, catalog = read_ml1m(folder)
    assert (log.n_users, log.n_items) == (3, 5)
    assert log.user.tolist() == [0, 0, 2, 2]
    assert log.item.tolist() == [1, 0, 2, 0]  # ties keep the file's order
    assert log.rating.tolist() == [3, 4, 1, 5]
    assert log.time.tolist() == [978302109, 978302109, 978300275, 978300760]
    assert catalog.title == [
        "Toy Story",
        "Sabrina, The",
        "Associate, The (L'Associé)",
        "Untold",
        "2001: A Space Odyssey",
    ]
    assert catalog.year.tolist() == [1995, 1995, 1982, 0, 1968]
    assert catalog.genres[0] == ("Animation", "Children's", "Comedy")
    assert catalog.demographics == [
        {"gender": "female", "age": "under 18", "occupation": "K-12 student"},
        {"gender": "male", "age": "56+", "occupation": "self-employed"},
        {"gender": "male", "age": "25-34", "occupation": "lawyer"},
    ]


def test_windows_line_ends_read_the_same(folder):
    expected = read_ml1m(folder)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    log, catalog = read_ml1m(folder)
    assert np.array_equal(log.time, expected[0].time)
    assert catalog.genres == expected[1].genres
    assert catalog.demographics == expected[1].demographics


def test_a_latin_1_byte_that_python_takes_for_a_line_end_is_text(folder):
    movies = (folder / "movies.dat").read_bytes().replace(b"Untold", b"Un\x85told")
    (folder / "movies.dat").write_bytes(movies)
    assert read_ml1m(folder)[1].title[3] == "Un\x85told"


def test_repeated_ratings_are_counted_and_another_edition_is_a_warning(folder, monkeypatch):
    said, rules = [], Rules()
    monkeypatch.setattr(logging, "warning", lambda form, *values: said.append(form % values))
    (folder / "ratings.dat").write_text(RATINGS + "1::7::5::978302200\n")
    log, _ = read_ml1m(folder, rules)
    assert log.rating.tolist() == [3, 4, 1, 5]
    assert rules.counts == {"ratings_repeated": 1, "items_never_rated": 2}
    assert any("official 24594131" in line for line in said)


def test_a_line_in_utf8_among_latin_1_is_read_as_such(folder):
    rules = Rules()
    movies = (folder / "movies.dat").read_bytes() + "13::Amélie (2001)::Comedy\n".encode()
    (folder / "movies.dat").write_bytes(movies)
    title = read_ml1m(folder, rules)[1].title
    assert (title[2], title[5]) == ("Associate, The (L'Associé)", "Amélie")
    assert rules.counts["titles_read_as_utf8"] == 1


@pytest.mark.parametrize(
    "name, line, text",
    [
        ("ratings", 5, "1::7::5"),
        ("ratings", 5, "1::7::5\n2::1::3::9\n"),
        ("ratings", 5, "1::9::5::97830"),  # cut inside the last number: no line break
        ("ratings", 5, "1::7::6::978302109\n"),
        ("ratings", 5, "1::7::3.5::978302109\n"),
        ("ratings", 5, "1,7,3,978302109\n"),
        ("ratings", 5, "\n"),
        ("ratings", 6, "2::1::3::9\nuser::movie::rating::time\n"),
        ("ratings", 5, "1::7::3::99999999999999999999\n"),
        ("ratings", 5, "2::8::3::978302109\n"),  # no such movie
        ("ratings", 6, "2::1::3::9\n3::1::3::978302109\n"),  # no such user
        ("movies", 6, "13::Half\n"),
        ("movies", 6, "x::Title (1990)::Drama\n"),
        ("movies", 6, "7::Again (1990)::Drama\n"),
        ("movies", 6, "14::Title (1990)::\n"),
        ("users", 4, "7::X::25::1::12345\n"),
        ("users", 4, "7::M::26::1::12345\n"),
        ("users", 4, "7::M::25::21::12345\n"),
        ("users", 4, "7::M::25\n"),
    ],
)
def test_bad_lines_are_located(folder, name, line, text):
    path = folder / f"{name}.dat"
    path.write_bytes(path.read_bytes() + text.encode("latin-1"))
    with pytest.raises(UserError) as error:
        read_ml1m(folder)
    assert f"{path}:{line}:" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["ratings", "movies", "users"])
def test_an_empty_file_is_named(folder, name):
    path = folder / f"{name}.dat"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=f"{name}.dat"):
        read_ml1m(folder)


@pytest.mark.parametrize("name", ["ratings", "movies", "users"])
def test_a_missing_file_says_where_to_get_it(folder, name):
    path = folder / f"{name}.dat"
    path.unlink()
    with pytest.raises(UserError, match=r"https://files\.grouplens\.org") as error:
        read_ml1m(folder)
    assert str(path) in str(error.value)


def test_the_real_thing():
    folder = Path(os.environ.get("R2REC_SHARED", "../shared")) / "data" / "ml-1m"
    if not folder.is_dir():
        pytest.skip(f"MovieLens-1M is not at {folder}; set R2REC_SHARED to the folder above data/")
    log, catalog = read_ml1m(folder)
    assert (log.n_users, len(log), log.n_items) == (6040, 1_000_209, 3883)
    assert len(np.unique(log.item)) == 3706
    assert np.bincount(log.rating.astype(int)).tolist() == [
        0,
        56174,
        107557,
        261197,
        348971,
        226310,
    ]
    assert (catalog.year > 0).all()
    assert not any("::" in title for title in catalog.title)
    sizes = {"sft": 500, "grpo": 500, "validation": 100, "evaluation": 1000}
    dataset = Dataset("ml1m", log, catalog, split(log, seed=0, sizes=sizes))
    assert (dataset.split.truth >= 0).sum() == 6028
    audit(dataset)
    # Popularity before the cutoffs: HR@1 .305 in independent scripts, standard error .015.
    seen = np.arange(len(log)) < dataset.split.cutoff[log.user]
    popularity = np.bincount(log.item[seen], minlength=log.n_items)
    users = dataset.split.users["evaluation"]
    best = popularity[dataset.split.candidates[users]].argmax(axis=1)
    hit = dataset.split.candidates[users][np.arange(len(users)), best] == dataset.split.truth[users]
    assert hit.mean() == pytest.approx(0.305, abs=0.045)


@pytest.fixture
def folder_100k(tmp_path):
    items = (
        f"1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|1|1|1{13 * '|0'}\n"
        f"2|L'Associé (1982)|01-Jan-1982||http://x|1{18 * '|0'}\n"
        f"267|unknown||||1{18 * '|0'}\n"
    )
    (tmp_path / "u.item").write_bytes(items.encode("latin-1"))
    (tmp_path / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
    (tmp_path / "u.data").write_text("2\t267\t4\t881250949\n1\t1\t5\t881250950\n1\t2\t3\t881250940\n")
    return tmp_path


def test_100k_is_read_field_by_field(folder_100k):
    rules = Rules()
    log, catalog = read_ml100k(folder_100k, rules)
    assert (log.user.tolist(), log.item.tolist()) == ([0, 0, 1], [1, 0, 2])
    assert (log.rating.tolist(), log.time.tolist()) == ([3, 5, 4], [881250940, 881250950, 881250949])
    assert list(catalog.title) == ["Toy Story", "L'Associé", "item 267"]
    assert catalog.year.tolist() == [1995, 1982, 0]
    assert list(catalog.genres) == [("Animation", "Children's", "Comedy"), (), ()]
    assert catalog.demographics[1] == {"gender": "female", "age": "53", "occupation": "other"}
    assert rules.counts == {"titles_missing": 1}


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [
        ("u.data", 4, "1\t2\t3"),
        ("u.data", 4, "1\t2\t6\t881250949\n"),
        ("u.data", 4, "1::2::3::881250949\n"),
        ("u.data", 4, "3\t2\t3\t881250949\n"),
        ("u.item", 4, "4|Heat (1995)|01-Jan-1995||http://x|0|0|1\n"),
        ("u.item", 4, f"1|Again (1995)|||{19 * '|0'}\n"),
        ("u.user", 3, "3|24|X|technician|85711\n"),
    ],
)
def test_bad_lines_of_100k_are_located(folder_100k, name, line, text):
    with open(folder_100k / name, "a") as file:
        file.write(text)
    with pytest.raises(UserError) as error:
        read_ml100k(folder_100k)
    assert f"{folder_100k / name}:{line}:" in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heat (1995)", ("Heat", 1995)),
        ("  Heat (1995)  ", ("Heat", 1995)),
        ("2001: A Space Odyssey(1968)", ("2001: A Space Odyssey", 1968)),
        ("(1995)", ("(1995)", 0)),
        ("Babylon 5", ("Babylon 5", 0)),
        ("Heat (199５)", ("Heat (199５)", 0)),
        ("", ("", 0)),
        (" " * 1_000_000 + "(1995", ("(1995", 0)),
    ],
)
def test_title_and_year(text, expected):
    assert title_and_year(text) == expected
