"""Reads MovieLens-1M in its own format: ratings.dat, movies.dat, users.dat.

The fields are those of the GroupLens README: `user::movie::rating::timestamp`,
`movie::Title (Year)::Genre|Genre` in latin-1, `user::gender::age::occupation::zip code`.
"""

import re
from pathlib import Path

import numpy as np
from absl import logging

from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.runtime.errors import UserError

URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
LICENCE = "research use, no redistribution; cite Harper and Konstan 2015 (GroupLens README)"

# The official release. A rebuilt or edited copy is usable, but its results are its own.
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

_RATINGS_FORM = "user::movie::rating::timestamp with a rating of 1 to 5"
_MOVIES_FORM = "movie::Title (Year)::Genre|Genre"
_USERS_FORM = "user::gender::age::occupation::zip with the codes of the GroupLens README"

# One match over the whole file: where it stops is the first bad line. Possessive quantifiers (++)
# keep no way back, so a million lines cost neither memory nor time. The bounds fit int64.
_RATING_LINES = re.compile(rb"(?:\d{1,9}+::\d{1,9}+::[1-5]::\d{1,18}+\r?\n)*+")
_MOVIE_LINE = re.compile(r"(\d{1,9})::(.+)::([^:]+)")
_USER_LINE = re.compile(r"(\d{1,9})::([FM])::(\d{1,3})::(\d{1,3})::.*")
_TITLE_AND_YEAR = re.compile(r"(.*\S)\s*\((\d{4})\)\s*")


def read_ml1m(folder: str | Path) -> tuple[Interactions, Catalog]:
    """Reads the unpacked folder. Users and movies are numbered in the order of their files.

    A movie nobody rated stays in the catalogue. The year leaves the title for `Catalog.year`.

    Raises:
      UserError: a missing file, or a line that is not of the expected form, with file and line.
    """
    folder = Path(folder)
    raw = {name: _read_bytes(folder / name) for name in OFFICIAL_BYTES}
    for name, size in OFFICIAL_BYTES.items():
        if len(raw[name]) != size:
            logging.warning(
                "%s has %d bytes, not the official %d: another edition of MovieLens-1M?",
                folder / name,
                len(raw[name]),
                size,
            )
    movie_ids, title, year, genres = _parse_movies(folder / "movies.dat", raw["movies.dat"])
    user_ids, demographics = _parse_users(folder / "users.dat", raw["users.dat"])
    path = folder / "ratings.dat"
    table = _parse_ratings(path, raw["ratings.dat"])
    user = _positions(path, table[:, 0], user_ids, "user", "users.dat")
    item = _positions(path, table[:, 1], movie_ids, "movie", "movies.dat")
    log = Interactions.from_log(user, item, table[:, 2], table[:, 3], len(user_ids), len(movie_ids))
    if len(log) < len(table):
        repeated = len(table) - len(log)
        logging.warning("%s: %d repeated ratings of one user and movie left out", path, repeated)
    return log, Catalog(title, year, genres, demographics)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): MovieLens-1M is at {URL}; "
            f"unpack it so that {path} exists"
        ) from error


def _parse_ratings(path: Path, raw: bytes) -> np.ndarray:
    """int64[N, 4] in the file's order: user, movie, rating, timestamp."""
    good = _RATING_LINES.match(raw).end()
    if good < len(raw):
        if b"\n" not in raw[good:]:
            last = raw.count(b"\n") + 1
            raise UserError(f"{path}:{last}: the file ends within a line, it is truncated: fetch it again")
        raise _bad_line(path, raw.count(b"\n", 0, good) + 1, _RATINGS_FORM)
    if not raw:
        raise UserError(f"{path} is empty: expected lines of {_RATINGS_FORM}; fetch it again")
    return np.fromstring(raw.replace(b"::", b" "), np.int64, sep=" ").reshape(-1, 4)


def _parse_movies(path: Path, raw: bytes):
    ids, titles, years, genres = [], [], [], []
    for number, line in _lines(raw):
        match = _MOVIE_LINE.fullmatch(line)
        if not match:
            raise _bad_line(path, number, _MOVIES_FORM)
        title_and_year = _TITLE_AND_YEAR.fullmatch(match[2])
        ids.append(int(match[1]))
        titles.append(title_and_year[1] if title_and_year else match[2].strip())
        years.append(int(title_and_year[2]) if title_and_year else 0)
        genres.append(tuple(match[3].split("|")))
    return _distinct(path, ids), titles, np.array(years, np.int32), genres


def _parse_users(path: Path, raw: bytes) -> tuple[np.ndarray, list[dict[str, str]]]:
    ids, demographics = [], []
    for number, line in _lines(raw):
        match = _USER_LINE.fullmatch(line)
        if not match or match[3] not in AGES or int(match[4]) >= len(OCCUPATIONS):
            raise _bad_line(path, number, _USERS_FORM)
        ids.append(int(match[1]))
        demographics.append(
            {
                "gender": GENDERS[match[2]],
                "age": AGES[match[3]],
                "occupation": OCCUPATIONS[int(match[4])],
            }
        )
    return _distinct(path, ids), demographics


def _lines(raw: bytes):
    # Not splitlines(): latin-1 text may hold bytes that it takes for line breaks.
    lines = raw.decode("latin-1").removesuffix("\n").split("\n")
    return ((number, line.removesuffix("\r")) for number, line in enumerate(lines, 1))


def _distinct(path: Path, ids: list[int]) -> np.ndarray:
    seen = {}
    for number, raw_id in enumerate(ids, 1):
        if raw_id in seen:
            raise UserError(f"{path}:{number}: id {raw_id} is already on line {seen[raw_id]}: remove one")
        seen[raw_id] = number
    return np.array(ids, np.int64)


def _positions(path: Path, raw_ids: np.ndarray, known: np.ndarray, what: str, listed_in: str):
    """Places of `raw_ids` in `known`: int64[N]."""
    order = np.argsort(known)
    place = order[np.minimum(np.searchsorted(known, raw_ids, sorter=order), len(known) - 1)]
    unknown = np.flatnonzero(known[place] != raw_ids)
    if len(unknown):
        row = int(unknown[0])
        raise UserError(
            f"{path}:{row + 1}: {what} {raw_ids[row]} is not in {listed_in}: use the files of one release"
        )
    return place


def _bad_line(path: Path, number: int, form: str) -> UserError:
    return UserError(f"{path}:{number}: expected {form}; correct the line or fetch the file again")
