"""Reads MovieLens: 1M and 100K in their own formats, and the CSV releases.

1M is `user::movie::rating::timestamp`, `movie::Title (Year)::Genre|Genre` and
`user::gender::age::occupation::zip`; 100K is tab-separated ratings, and pipe-separated movies with a flag
for each genre. Both are latin-1 and include user demographics. The CSV releases have half stars and
UTF-8 text but no demographics. Fields and codes are those of the GroupLens READMEs.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.data.mapped_text import LabelsBuilder, Texts, Traits
from r2rec_jax.data.provenance import MOVIELENS
from r2rec_jax.data.rating_scale import Scale
from r2rec_jax.data.raw_files import Stage, find
from r2rec_jax.data.text_format import STRICT_CSV
from r2rec_jax.data.text_lines import bad_line, distinct, parse_ratings, positions, read_bytes, text_lines
from r2rec_jax.runtime.errors import UserError

# File sizes of the official 1M release. An edited copy works, but its results are not comparable.
OFFICIAL_BYTES = {"movies.dat": 171_308, "users.dat": 134_368, "ratings.dat": 24_594_131}

GENDERS = {"F": "female", "M": "male"}
AGES = {
    "1": "under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "56+",
}
OCCUPATIONS = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)

GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)

HALF_STARS = Scale("stars", 0.5, 5.0, 0.5)

_RATINGS_FORM = "user::movie::rating::timestamp with a rating of 1 to 5"
_MOVIES_FORM = "movie::Title (Year)::Genre|Genre"
_USERS_FORM = "user::gender::age::occupation::zip with the codes of the GroupLens README"
_RATINGS_FORM_100K = "user, movie, rating of 1 to 5 and timestamp between tabs"
_MOVIES_FORM_100K = "movie|title (year)|date|date|address|19 flags of 0 or 1"
_USERS_FORM_100K = "user|age|gender|occupation|zip"

_MOVIE_LINE = re.compile(r"(\d{1,9})::(.+)::([^:]+)")
_USER_LINE = re.compile(r"(\d{1,9})::([FM])::(\d{1,3})::(\d{1,3})::.*")
_MOVIE_LINE_100K = re.compile(r"(\d{1,9})\|([^|]*)\|[^|]*\|[^|]*\|[^|]*((?:\|[01]){19})")
_USER_LINE_100K = re.compile(r"(\d{1,9})\|(\d{1,3})\|([FM])\|([^|]+)\|.*")


def read_ml1m(folder: str | Path, rules: Rules | None = None) -> tuple[Interactions, Catalog]:
    """Reads the unpacked folder. Users and movies are numbered in the order of their files.

    Movies without ratings stay in the catalogue. The year moves from the title to `Catalog.year`.

    Raises:
      UserError: a missing file, or a line that does not have the expected form (with file and line).
    """
    folder, rules = Path(folder), rules or Rules()
    raw = {name: read_bytes(folder / name, MOVIELENS["ml-1m"].hint) for name in OFFICIAL_BYTES}
    for name, size in OFFICIAL_BYTES.items():
        if len(raw[name]) != size:
            logging.warning(
                "%s has %d bytes, not the official %d: another edition of MovieLens-1M?",
                folder / name,
                len(raw[name]),
                size,
            )
    movies = _parse_movies(folder / "movies.dat", raw["movies.dat"], rules)
    users = _parse_users(folder / "users.dat", raw["users.dat"], rules)
    table = parse_ratings(folder / "ratings.dat", raw["ratings.dat"], b"::", _RATINGS_FORM)
    return _join(folder / "ratings.dat", table, users, movies, ("users.dat", "movies.dat"), rules)


def read_ml100k(folder: str | Path, rules: Rules | None = None) -> tuple[Interactions, Catalog]:
    """Reads the unpacked folder as `read_ml1m` does. Ages are in years. The title "unknown" means missing."""
    folder, rules = Path(folder), rules or Rules()
    raw = {
        name: read_bytes(folder / name, MOVIELENS["ml-100k"].hint) for name in ("u.item", "u.user", "u.data")
    }
    movies = _parse_movies_100k(folder / "u.item", raw["u.item"], rules)
    users = _parse_users_100k(folder / "u.user", raw["u.user"], rules)
    table = parse_ratings(folder / "u.data", raw["u.data"], b"\t", _RATINGS_FORM_100K)
    return _join(folder / "u.data", table, users, movies, ("u.user", "u.item"), rules)


def read_movielens_csv(
    folder: str | Path, release: str, stage: Stage, rules: Rules
) -> tuple[Interactions, Catalog]:
    """Reads ratings.csv and movies.csv of "ml-latest-small", "ml-20m", "ml-25m" or "ml-32m".

    Users and movies are numbered by sorted raw id. Movies without ratings are dropped.

    Raises:
      UserError: a missing or damaged file, or a bad value (with file and line or row).
    """
    paths = [find(folder, name) for name in ("ratings.csv", "movies.csv")]
    if None in paths:
        raise UserError(
            f"no ratings.csv and movies.csv in {folder}: {MOVIELENS[release].hint}; unpack it there"
        )
    named = {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
    ratings = stage.ratings(paths[0], named, unit="s", form=STRICT_CSV)
    facts = {"id": "movieId", "title": "title", "genres": "genres"}
    staged = stage.facts(paths[1], facts, form=STRICT_CSV)
    ratings.require_match("items", paths[1], staged)
    log = rules.log(
        **ratings.columns(),
        n_users=ratings.n_users,
        n_items=ratings.n_items,
        where=str(paths[0]),
        own=HALF_STARS,
    )
    genres, years = LabelsBuilder(), np.zeros(log.n_items, np.int32)

    def titles() -> Iterator[str]:
        for number, row in enumerate(ratings.facts("items", staged, ["title", "genres"])):
            movie, listed, title, kinds = row
            rules.count("items_not_listed", listed == 0)
            rules.count("items_repeated", max(0, listed - 1))
            named = [g for g in (kinds or "").split("|") if g and g != "(no genres listed)"]
            genres.append(rules.labels(named))
            title, years[number] = title_and_year(title or "")
            yield rules.title(title, f"item {movie}")

    title = Texts.of(titles())
    rules.count("items_left_out", ratings.left_out("items", staged))
    rules.check_limits(dict.fromkeys(("items", "titles", "genres"), log.n_items), str(paths[1]))
    nothing = Traits({}, np.empty((log.n_users, 0), np.int32))
    return log, Catalog(title, years, genres.labels(), nothing, *ratings.all_ids())


def title_and_year(text: str) -> tuple[str, int]:
    """("Heat", 1995) from "Heat (1995)". The year is 0 if there is none."""
    # Not a regular expression: on megabytes of spaces it would backtrack for hours.
    text = text.strip()
    year = text[-5:-1]
    if text[-6:-5] + text[-1:] == "()" and year.isascii() and year.isdigit() and text[:-6].strip():
        return text[:-6].rstrip(), int(year)
    return text, 0


def _join(path: Path, table, users, movies, listed_in: tuple[str, str], rules: Rules):
    (user_ids, demographics), (movie_ids, title, year, genres) = users, movies
    user = positions(path, table[:, 0], user_ids, "user", listed_in[0])
    item = positions(path, table[:, 1], movie_ids, "movie", listed_in[1])
    log = rules.log(
        user=user,
        item=item,
        rating=table[:, 2],
        time=table[:, 3],
        n_users=len(user_ids),
        n_items=len(movie_ids),
        where=str(path),
        own=Scale(),
    )
    rules.check_limits({"titles": log.n_items}, listed_in[1])
    rules.count("items_never_rated", log.n_items - len(np.unique(log.item)))
    ids = ([str(number) for number in numbers] for numbers in (user_ids.tolist(), movie_ids.tolist()))
    return log, Catalog(title, year, genres, demographics, *ids)


def _parse_movies(path: Path, raw: bytes, rules: Rules):
    ids, titles, years, genres = [], [], [], []
    for number, line in text_lines(raw, rules):
        match = _MOVIE_LINE.fullmatch(line)
        if not match:
            raise bad_line(path, number, _MOVIES_FORM)
        title, year = title_and_year(match[2])
        ids.append(int(match[1]))
        titles.append(rules.title(title, f"item {match[1]}"))
        years.append(year)
        genres.append(rules.labels(match[3].split("|")))
    return distinct(path, ids), titles, np.array(years, np.int32), genres


def _parse_users(path: Path, raw: bytes, rules: Rules) -> tuple[np.ndarray, list[dict[str, str]]]:
    ids, demographics = [], []
    for number, line in text_lines(raw, rules):
        match = _USER_LINE.fullmatch(line)
        if not match or match[3] not in AGES or int(match[4]) >= len(OCCUPATIONS):
            raise bad_line(path, number, _USERS_FORM)
        ids.append(int(match[1]))
        demographics.append(
            {
                "gender": GENDERS[match[2]],
                "age": AGES[match[3]],
                "occupation": OCCUPATIONS[int(match[4])],
            }
        )
    return distinct(path, ids), demographics


def _parse_movies_100k(path: Path, raw: bytes, rules: Rules):
    ids, titles, years, genres = [], [], [], []
    for number, line in text_lines(raw, rules):
        match = _MOVIE_LINE_100K.fullmatch(line)
        if not match:
            raise bad_line(path, number, _MOVIES_FORM_100K)
        title, year = title_and_year("" if match[2] == "unknown" else match[2])
        ids.append(int(match[1]))
        titles.append(rules.title(title, f"item {match[1]}"))
        years.append(year)
        flags = zip(GENRES_100K, match[3][1:].split("|"), strict=True)
        genres.append(tuple(genre for genre, flag in flags if flag == "1" and genre != "unknown"))
    return distinct(path, ids), titles, np.array(years, np.int32), genres


def _parse_users_100k(path: Path, raw: bytes, rules: Rules) -> tuple[np.ndarray, list[dict[str, str]]]:
    ids, demographics = [], []
    for number, line in text_lines(raw, rules):
        match = _USER_LINE_100K.fullmatch(line)
        if not match:
            raise bad_line(path, number, _USERS_FORM_100K)
        ids.append(int(match[1]))
        demographics.append(
            {"gender": GENDERS[match[3]], "age": match[2], "occupation": rules.label(match[4])}
        )
    return distinct(path, ids), demographics
