"""A prepared data set: in memory as `Dataset`, on disk as a folder that describes itself.

The folder holds one .npy a column, read through a memory map: the log (user, item, rating, time, offsets),
the split (truth, cutoff, users_GROUP, candidates and candidate_users), the catalogue (year, title_bytes and
title_offsets, same_name and same_title, genre_codes and genre_offsets,
demographic_codes; see data/mapped_text.py) and the ids that users and items have in the raw files
(user_id_bytes and user_id_offsets, item_id_...).
names.json lists what the codes stand for. manifest.json has schema version, name, source, licence,
protocol, rating scale, counts, what the rules did, size and sha256 of every file, and the hash of the
candidates, so that two results can be seen to rank the same ones.
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
LOOKED_AT = 20_000  # ids, for those nearest to one that is not there


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A rating log, what is known of its items and users, and the protocol's split of it."""

    name: str
    interactions: Interactions
    catalog: Catalog
    split: Split
    scale: Scale = FIVE_STARS  # of the ratings
    clock: str = TIME  # or ORDER: `interactions.time` is then the row's place in the file
    _folder: Path | None = dataclasses.field(default=None, init=False, repr=False)  # what `load` mapped

    def __reduce__(self):
        """To another process a loaded data set goes as its folder, which is mapped there again."""
        if self._folder is not None:
            return load, (self._folder,)
        return Dataset, (self.name, self.interactions, self.catalog, self.split, self.scale, self.clock)

    def history(self, user: int) -> slice:
        """Rows of `interactions` that may be seen for `user`, in time order: before the truth."""
        return slice(int(self.interactions.offsets[user]), int(self.split.cutoff[user]))

    def truth_time(self, user: int) -> int:
        """When the truth of `user` happened, seconds; a user without one has no such time (KeyError).

        Under `before_target_time` an edge of anybody else may be shown to `user` only if it is earlier.
        """
        if self.split.truth[user] < 0:
            raise KeyError(f"user {user} has no truth")
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
        """The number of the user with this id in the raw files. Raises UserError for an id nobody has."""
        return _find("user", self.catalog.user_ids, text)

    def find_item(self, text: str) -> int:
        """As `find_user`, of an item."""
        return _find("item", self.catalog.item_ids, text)


def _find(kind: str, ids: Sequence[str], text: str) -> int:
    number = ids.find(text) if isinstance(ids, Texts) else ids.index(text) if text in ids else None
    if number is None:
        similar = (raw_id for raw_id in ids if abs(len(raw_id) - len(text)) < 2)
        some = list(itertools.islice(similar, LOOKED_AT)) or [ids[k] for k in range(min(3, len(ids)))]
        nearest = ", ".join(difflib.get_close_matches(text, some, n=3, cutoff=0.0))
        raise UserError(f"no {kind} has the id {shown(text, 100)}: the nearest are {shown(nearest, 300)}")
    return number


def candidates_hash(split: Split) -> str:
    """sha256 over the users that have candidates, ascending, and their rows: equal for two runs that rank
    the same items for the same users.
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
    """Writes the folder in one move; `source`, `licence`, `protocol` (the settings of the split) and
    `rules` and `ties` (the counts of data/cleaning.py and `sources.tied_truths`) are recorded in the
    manifest. The folder `staging`, of no more use then, goes before the data appear: whoever is killed in
    between has nothing left to clear. `made_from` as for `build_stamp.record`.

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
    """Opens a prepared folder; columns are memory-mapped and read-only.

    Presence, schema and sizes are checked, and the candidates against their hash; the other files'
    hashes are not recomputed, since that would read what the memory map leaves on disk.

    Raises:
      UserError: the folder is missing, incomplete, damaged or of another schema.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        for name, facts in manifest["files"].items():
            if Path(name).name != name:
                raise ValueError(f"{name!r} is no file of the folder")
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
    """manifest.json of a prepared folder. Raises UserError as `load` does."""
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
_VERSIONS = ("same_name", "same_title")  # of titles: slow to find anew in a catalogue of millions


def _columns(dataset: Dataset) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays by file name, and the names that the codes among them stand for."""
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
