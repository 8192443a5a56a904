"""A prepared data set: in memory as `Dataset`, on disk as a folder that describes itself.

The folder holds one .npy a column (read through a memory map), items.jsonl and users.jsonl, and
manifest.json: schema version, name, source, licence, counts, size and sha256 of every file, and the
hash of the candidates, so that two results can be seen to rank the same ones.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.data.protocol import SPLITS, Split
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import new_folder, write_atomic

SCHEMA = 1
MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A rating log, what is known of its items and users, and the protocol's split of it."""

    name: str
    interactions: Interactions
    catalog: Catalog
    split: Split

    def history(self, user: int) -> slice:
        """Rows of `interactions` that may be seen for `user`, in time order: before the truth."""
        return slice(int(self.interactions.offsets[user]), int(self.split.cutoff[user]))

    def recent_likes(self, user: int, n: int, above: float = 3.0) -> np.ndarray:
        """The last `n` items in the history rated above `above`, oldest first: int32[<= n]."""
        rows = self.history(user)
        liked = self.interactions.item[rows][self.interactions.rating[rows] > above]
        return liked[max(0, len(liked) - n) :]


def candidates_hash(split: Split) -> str:
    """sha256 of the candidates' bytes: equal for two runs that rank the same items."""
    return hashlib.sha256(np.ascontiguousarray(split.candidates, "<i4").tobytes()).hexdigest()


def save(
    dataset: Dataset,
    folder: str | Path,
    *,
    source: str = "",
    licence: str = "",
    overwrite: bool = False,
) -> None:
    """Writes the folder in one move; `source` and `licence` are recorded in the manifest.

    Raises:
      UserError: the folder exists and `overwrite` is false.
    """
    log, catalog, split = dataset.interactions, dataset.catalog, dataset.split
    with new_folder(folder, overwrite) as fresh:
        for name, column in _columns(log, split).items():
            np.save(fresh / f"{name}.npy", column, allow_pickle=False)
        items = zip(catalog.title, catalog.year.tolist(), catalog.genres, strict=True)
        _write_lines(fresh / "items.jsonl", [{"title": t, "year": y, "genres": list(g)} for t, y, g in items])
        _write_lines(fresh / "users.jsonl", catalog.demographics)
        manifest = {
            "schema": SCHEMA,
            "name": dataset.name,
            "source": source,
            "licence": licence,
            "counts": {
                "users": log.n_users,
                "items": log.n_items,
                "ratings": len(log),
                "eligible_users": int((split.truth >= 0).sum()),
                "candidates": split.candidates.shape[1],
                "split": {name: len(users) for name, users in split.users.items()},
            },
            "candidates_sha256": candidates_hash(split),
            "files": {file.name: _describe(file) for file in sorted(fresh.iterdir())},
        }
        write_atomic(fresh / MANIFEST, json.dumps(manifest, indent=2) + "\n")


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
            if not (folder / name).is_file():
                raise UserError(f"{folder / name} is missing: {_REMEDY}")
            if (folder / name).stat().st_size != facts["bytes"]:
                raise UserError(f"{folder / name} is not {facts['bytes']} bytes long: {_REMEDY}")
        dataset = _open(folder, manifest)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise UserError(f"{folder} is damaged ({error!r}): {_REMEDY}") from error
    if candidates_hash(dataset.split) != manifest["candidates_sha256"]:
        raise UserError(f"the candidates in {folder} differ from their hash: {_REMEDY}")
    return dataset


def read_manifest(folder: str | Path) -> dict:
    """manifest.json of a prepared folder. Raises UserError as `load` does."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no prepared data set: {_REMEDY}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {_REMEDY}") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema!r}, not {SCHEMA}: {_REMEDY}")
    return manifest


_REMEDY = "make it with python -m launch.prepare"


def _columns(log: Interactions, split: Split) -> dict[str, np.ndarray]:
    columns = {"user": log.user, "item": log.item, "rating": log.rating, "time": log.time}
    columns |= {"truth": split.truth, "cutoff": split.cutoff, "candidates": split.candidates}
    return columns | {f"users_{name}": users for name, users in split.users.items()}


def _open(folder: Path, manifest: dict) -> Dataset:
    counts = manifest["counts"]

    def column(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    log = Interactions(
        *(column(name) for name in ("user", "item", "rating", "time")),
        n_users=counts["users"],
        n_items=counts["items"],
    )
    items, demographics = _read_lines(folder / "items.jsonl"), _read_lines(folder / "users.jsonl")
    if not (len(log) == counts["ratings"] and len(items) == log.n_items):
        raise ValueError("the files and the counts in the manifest disagree")
    catalog = Catalog(
        title=[item["title"] for item in items],
        year=np.array([item["year"] for item in items], np.int32),
        genres=[tuple(item["genres"]) for item in items],
        demographics=demographics,
    )
    users = {name: column(f"users_{name}") for name in SPLITS}
    split = Split(users, column("truth"), column("cutoff"), column("candidates"))
    return Dataset(manifest["name"], log, catalog, split)


def _write_lines(path: Path, rows: list[dict]) -> None:
    # ASCII escapes: a title holding an exotic line separator must stay one line.
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))


def _read_lines(path: Path) -> list[dict]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _describe(path: Path) -> dict:
    with open(path, "rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
