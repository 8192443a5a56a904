"""A prepared data set: `Dataset` in memory, a folder with a manifest on disk.

The folder contains one memory-mapped .npy file per column:

- the log: user, item, rating, time, offsets;
- the split: truth, cutoff, users_GROUP, candidates, candidate_users;
- the catalogue: year, title_bytes, title_offsets, same_name, same_title, genre_codes, genre_offsets,
  demographic_codes (see data/mapped_text.py);
- the ids in the raw files: user_id_bytes, user_id_offsets, item_id_bytes, item_id_offsets.

names.json lists the names of the genre and demographic codes. manifest.json contains schema version, name,
source, licence, protocol, rating scale, counts, counts of the cleaning rules, and size and sha256 of every
file. It also contains the hash of the candidates. Two results with equal hashes rank the same candidates.
"""

import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import operator
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.data.mapped_text import Labels, Texts, Traits
from r2rec_jax.data.negatives import Candidates, compact
from r2rec_jax.data.protocol import SPLITS, Split
from r2rec_jax.data.rating_scale import FIVE_STARS, Scale
from r2rec_jax.runtime import build_stamp
from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.paths import new_folder, write_atomic
from r2rec_jax.runtime.untrusted import open_array, parse_json

SCHEMA = 3
MANIFEST = "manifest.json"
NAMES = "names.json"
TIME, ORDER = "time", "order"
LOOKED_AT = 20_000  # ids compared to suggest the nearest ones to an unknown id


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A rating log, the metadata of its items and users, and the protocol's split."""

    name: str
    interactions: Interactions
    catalog: Catalog
    split: Split
    scale: Scale = FIVE_STARS  # of the ratings
    clock: str = TIME  # with ORDER, `interactions.time` is the row's position in the file
    _folder: Path | None = dataclasses.field(default=None, init=False, repr=False)  # set by `load`

    def __reduce__(self):
        """Pickles a loaded data set as its folder. The other process maps the files again."""
        if self._folder is not None:
            return load, (self._folder,)
        return Dataset, (self.name, self.interactions, self.catalog, self.split, self.scale, self.clock)

    def history(self, user: int) -> slice:
        """Rows of `interactions` in the history of `user`: those before the held-out item, in time order."""
        return slice(int(self.interactions.offsets[user]), int(self.split.cutoff[user]))

    def truth_time(self, user: int) -> int:
        """Time of the held-out item of `user`, seconds.

        With `before_target_time`, chains of `user` contain only earlier edges of other users.

        Raises:
          KeyError: the user has no held-out item.
          UserError: the data set has an order but no times.
        """
        if self.split.truth[user] < 0:
            raise KeyError(f"user {user} has no held-out item")
        if self.clock != TIME:
            raise UserError(
                f"data set {self.name!r} has no times, only an order: data.before_target_time must be false"
            )
        return int(self.interactions.time[self.split.cutoff[user]])

    def recent_likes(self, user: int, n: int) -> np.ndarray:
        """The last `n` liked items in the history, oldest first: int32[<= n]."""
        rows = self.history(user)
        liked = self.interactions.item[rows][self.interactions.rating[rows] > self.split.like_above]
        return liked[max(0, len(liked) - n) :]

    def find_user(self, text: str) -> int:
        """The index of the user with this id in the raw files. Raises UserError for an unknown id."""
        return _find("user", self.catalog.user_ids, text)

    def find_item(self, text: str) -> int:
        """The index of the item with this id in the raw files. Raises UserError for an unknown id."""
        return _find("item", self.catalog.item_ids, text)


def _find(kind: str, ids: Sequence[str], text: str) -> int:
    number = ids.find(text) if isinstance(ids, Texts) else ids.index(text) if text in ids else None
    if number is None:
        similar = (raw_id for raw_id in ids if abs(len(raw_id) - len(text)) < 2)
        pool = list(itertools.islice(similar, LOOKED_AT)) or [ids[k] for k in range(min(3, len(ids)))]
        nearest = ", ".join(difflib.get_close_matches(text, pool, n=3, cutoff=0.0))
        raise UserError(f"no {kind} has the id {shown(text, 100)}: the nearest are {shown(nearest, 300)}")
    return number


def candidates_hash(split: Split) -> str:
    """sha256 over the users with candidates, ascending, and their candidate rows.

    Two runs with equal hashes rank the same items for the same users.
    """
    candidates = compact(split.candidates)
    digest = hashlib.sha256(np.ascontiguousarray(candidates.users, "<i4"))
    digest.update(np.ascontiguousarray(candidates.rows, "<i4"))
    return digest.hexdigest()


def save(
    dataset: Dataset,
    folder: str | Path,
    *,
    source: str = "",
    licence: str = "",
    protocol: dict | None = None,
    rules: dict[str, int] | None = None,
    ties: dict[str, int] | None = None,
    overwrite: bool = False,
    staging: Path | None = None,
    made_from: str = "",
) -> None:
    """Writes the folder atomically.

    source, licence, protocol, rules, ties: recorded in the manifest. `protocol` holds the settings of the
      split, `rules` the counts of data/cleaning.py, `ties` the counts of `sources.tied_truths`.
    staging: a folder that is deleted before the data appear, so that an interrupted run leaves no leftovers.
    made_from: as in `build_stamp.record`.

    Raises:
      UserError: the folder exists and `overwrite` is false.
    """
    log, split = dataset.interactions, dataset.split
    with new_folder(folder, overwrite) as fresh:
        columns, names = _columns(dataset)
        for name, column in columns.items():
            np.save(fresh / f"{name}.npy", column, allow_pickle=False)
        write_atomic(fresh / NAMES, json.dumps(names) + "\n")
        manifest = {
            "schema": SCHEMA,
            "name": dataset.name,
            "source": source,
            "licence": licence,
            "protocol": (protocol or {}) | {"like_above": split.like_above, "clock": dataset.clock},
            "scale": dataclasses.asdict(dataset.scale),
            "counts": {
                "users": log.n_users,
                "items": log.n_items,
                "ratings": len(log),
                "eligible_users": int((split.truth >= 0).sum()),
                "candidates": split.candidates.shape[1],
                "split": {name: len(users) for name, users in split.users.items()},
            },
            "rules": dict(sorted((rules or {}).items())),
            "ties": ties or {},
            "candidates_sha256": candidates_hash(split),
            "files": {file.name: _describe(file) for file in sorted(fresh.iterdir())},
        }
        write_atomic(fresh / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        if made_from:
            build_stamp.record(fresh, made_from)
        if staging:
            shutil.rmtree(staging, ignore_errors=True)


def load(folder: str | Path) -> Dataset:
    """Opens a prepared folder. Columns are memory-mapped and read-only.

    Checks the presence and size of the files, the schema, and the hash of the candidates. The hashes of the
    other files are not recomputed, because that would read every file from disk.

    Raises:
      UserError: the folder is missing, incomplete, damaged or has another schema.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        for name, facts in manifest["files"].items():
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not a file name in the folder")
            if not (folder / name).is_file():
                raise UserError(f"{folder / name} is missing: {_REMEDY}")
            if (folder / name).stat().st_size != facts["bytes"]:
                raise UserError(f"{folder / name} is not {facts['bytes']} bytes long: {_REMEDY}")
        dataset, candidates = _open(folder, manifest), manifest["candidates_sha256"]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        raise UserError(f"{folder} is damaged ({shown(repr(error), 300)}): {_REMEDY}") from error
    if candidates_hash(dataset.split) != candidates:
        raise UserError(f"the candidates in {folder} differ from their hash: {_REMEDY}")
    object.__setattr__(dataset, "_folder", folder.absolute())
    return dataset


def read_manifest(folder: str | Path) -> dict:
    """Reads manifest.json of a prepared folder. Raises UserError as `load` does."""
    path = Path(folder) / MANIFEST
    try:
        manifest = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder} holds no prepared data set: {_REMEDY}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {_REMEDY}") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {shown(repr(schema), 80)}, not {SCHEMA}: {_REMEDY}")
    return manifest


_REMEDY = "make it with python -m launch.prepare"
_LOG = ("user", "item", "rating", "time", "offsets")
_VERSIONS = ("same_name", "same_title")  # stored because recomputing them is slow for millions of items


def _columns(dataset: Dataset) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays by file name, and the names of the genre and demographic codes."""
    log, catalog, split = dataset.interactions, dataset.catalog, dataset.split
    candidates = compact(split.candidates)
    titles = Texts.of(catalog.title)
    genres = catalog.genres if isinstance(catalog.genres, Labels) else Labels.of(catalog.genres)
    ids = {"user": Texts.of(catalog.user_ids), "item": Texts.of(catalog.item_ids)}
    traits = Traits.of(catalog.demographics)
    columns = {name: getattr(log, name) for name in _LOG}
    columns |= {"truth": split.truth, "cutoff": split.cutoff}
    columns |= {"candidates": candidates.rows, "candidate_users": candidates.users}
    columns |= {f"users_{name}": users for name, users in split.users.items()}
    columns |= {"year": catalog.year, "title_bytes": titles.blob, "title_offsets": titles.offsets}
    columns |= {"genre_codes": genres.codes, "genre_offsets": genres.offsets}
    columns |= {name: getattr(catalog, name) for name in _VERSIONS}
    columns |= {"demographic_codes": traits.codes}
    columns |= {f"{kind}_id_bytes": texts.blob for kind, texts in ids.items()}
    columns |= {f"{kind}_id_offsets": texts.offsets for kind, texts in ids.items()}
    return columns, {"genres": genres.names, "demographics": traits.values}


def _open(folder: Path, manifest: dict) -> Dataset:
    counts = manifest["counts"]

    def column(name: str, dtype: type = np.int32, ndim: int = 1) -> np.ndarray:
        return open_array(folder / f"{name}.npy", dtype, ndim)

    def offsets(name: str) -> np.ndarray:
        return column(name, np.int64)

    log = Interactions(
        user=column("user"),
        item=column("item"),
        rating=column("rating", np.float32),
        time=column("time", np.int64),
        offsets=offsets("offsets"),
        n_users=operator.index(counts["users"]),
        n_items=operator.index(counts["items"]),
    )

    def texts(name: str) -> Texts:
        return Texts(column(f"{name}_bytes", np.uint8), offsets(f"{name}_offsets"))

    names = parse_json((folder / NAMES).read_bytes())
    catalog = Catalog(
        title=texts("title"),
        year=column("year"),
        genres=Labels(names["genres"], column("genre_codes"), offsets("genre_offsets")),
        demographics=Traits(names["demographics"], column("demographic_codes", ndim=2)),
        user_ids=texts("user_id"),
        item_ids=texts("item_id"),
    )
    for name in _VERSIONS:  # cached properties
        vars(catalog)[name] = column(name)
    facts = (catalog.title, catalog.year, catalog.genres, catalog.item_ids, *map(column, _VERSIONS))
    if len(log) != counts["ratings"] or {len(fact) for fact in facts} != {log.n_items}:
        raise ValueError("the files and the counts in the manifest disagree")
    if {len(log.offsets) - 1, len(catalog.demographics), len(catalog.user_ids)} != {log.n_users}:
        raise ValueError("the files and the number of users in the manifest disagree")
    users = {name: column(f"users_{name}") for name in SPLITS}
    candidates = Candidates(column("candidate_users"), column("candidates", ndim=2), log.n_users)
    like_above = float(manifest["protocol"]["like_above"])
    if not math.isfinite(like_above):
        raise ValueError(f"like_above is {like_above}")
    split = Split(users, column("truth"), column("cutoff", np.int64), candidates, like_above)
    clock = manifest["protocol"]["clock"]
    if clock not in (TIME, ORDER):
        raise ValueError(f"clock is {clock!r}")
    return Dataset(manifest["name"], log, catalog, split, Scale(**manifest["scale"]), clock)


def _describe(path: Path) -> dict:
    with open(path, "rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
