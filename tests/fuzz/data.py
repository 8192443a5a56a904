"""Rating logs and catalogues: raw files of every source, and a prepared folder."""

import abc
import gzip
import json
import shutil
from pathlib import Path
from random import Random

import numpy as np

from r2rec_jax.data import prepared
from r2rec_jax.data.cleaning import LONGEST_TITLE, Rules
from r2rec_jax.data.generate import generate
from r2rec_jax.data.interactions import Catalog, Interactions, first_of_pair
from r2rec_jax.data.movielens import read_ml1m, read_ml100k
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.data.split_audit import audit
from tests.data.conftest import write_raw
from tests.fuzz.case import Target
from tests.fuzz.mutate import mutate, mutate_json

FLAGS_100K = "|".join("0" * 18 + "1")


class Files(Target):
    """A reader of a folder: an input's first byte says which file it replaces, the rest is its new content.

    `seeds`: valid content by name.
    """

    seeds: dict[str, bytes]

    def make(self, rng: Random) -> bytes:
        k = rng.randrange(len(self.seeds))
        return bytes([k]) + self.mutated(rng, list(self.seeds)[k], list(self.seeds.values())[k])

    def mutated(self, rng: Random, name: str, content: bytes) -> bytes:
        del name
        return mutate(rng, content)

    def read(self, data: bytes) -> None:
        name = list(self.seeds)[(data[0] if data else 0) % len(self.seeds)]
        (self.folder / name).write_bytes(data[1:])
        try:
            self.read_folder()
        finally:
            (self.folder / name).write_bytes(self.seeds[name])

    @abc.abstractmethod
    def read_folder(self) -> None:
        """Reads what is in the folder, as it is now."""

    def keep(self) -> None:
        """Takes what is in the folder for valid."""
        self.seeds = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


class MovieLens1M(Files):
    movies = "1::Toy Story (1995)::Animation|Comedy\n7::Sabrina, The (1995)::Comedy\n9::L'Associé::Drama\n"
    users = "1::F::1::10::48067\n2::M::56::16::70072\n6::M::25::11::55117-1234\n"
    ratings = "6::1::5::978300760\n1::7::3::978302109\n1::1::4::978302109\n6::9::1::978300275\n"

    def __init__(self, folder: Path):
        super().__init__(folder)
        for name in ("movies", "users", "ratings"):
            (folder / f"{name}.dat").write_bytes(getattr(self, name).encode("latin-1"))
        self.keep()

    def read_folder(self) -> None:
        check_log(*read_ml1m(self.folder, Rules()))


class MovieLens100K(Files):
    def __init__(self, folder: Path):
        super().__init__(folder)
        movies = f"1|Toy Story (1995)|01-Jan-1995||http://x|{FLAGS_100K}\n2|unknown||||{FLAGS_100K}\n"
        (folder / "u.item").write_text(movies)
        (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
        (folder / "u.data").write_text("1\t1\t3\t881250949\n2\t1\t5\t891717742\n2\t2\t1\t878887116\n")
        self.keep()

    def read_folder(self) -> None:
        check_log(*read_ml100k(self.folder, Rules()))


def check_log(log: Interactions, catalog: Catalog) -> None:
    """What every reader promises."""
    assert len(log.user) == len(log.item) == len(log.rating) == len(log.time)
    assert len(catalog.title) == len(catalog.year) == len(catalog.genres) == log.n_items
    assert len(catalog.demographics) == log.n_users
    if len(log):
        assert 0 <= log.user.min() <= log.user.max() < log.n_users
        assert 0 <= log.item.min() <= log.item.max() < log.n_items
    assert np.isfinite(log.rating).all() and (np.diff(log.user) >= 0).all()
    assert (np.diff(log.time)[np.diff(log.user) == 0] >= 0).all() and first_of_pair(log.user, log.item).all()
    assert all(0 < len(title) <= LONGEST_TITLE for title in catalog.title)


class Staged(Files):
    """A source that goes through duckdb: bytes inside of what is gzipped, too."""

    source = ""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._raw = write_raw(folder, self.source)
        self.keep()

    def mutated(self, rng: Random, name: str, content: bytes) -> bytes:
        packed = name.endswith(".gz") and rng.randrange(4)
        content = gzip.decompress(content) if packed else content
        if b'{"' in content[:3] and rng.randrange(2):
            lines = content.splitlines()
            k = rng.randrange(len(lines))
            lines[k] = mutate_json(rng, json.loads(lines[k]))
            content = b"\n".join(lines) + b"\n"
        else:
            content = mutate(rng, content)
        return gzip.compress(content, 1) if packed else content

    def read_folder(self) -> None:
        try:
            dataset, _ = self._raw.read(self.folder / "staging")
        finally:
            shutil.rmtree(self.folder / "staging", ignore_errors=True)
        check_log(dataset.interactions, dataset.catalog)
        audit(dataset)


class MovieLensCSV(Staged):
    source = "ml-25m"


class Amazon2023(Staged):
    source = "amazon-2023"


class Amazon2014(Staged):
    source = "amazon-2014"


class TableCSV(Staged):
    source = "csv"


class TableJSON(Staged):
    source = "jsonl"


class TableParquet(Staged):
    source = "parquet"


class Prepared(Files):
    """A prepared folder, of which one file is another."""

    def __init__(self, folder: Path):
        super().__init__(folder / "data")
        log, catalog = generate(seed=3, users=30, items=64, ratings_per_user=15)
        groups = split(log, seed=1, sizes={"sft": 5, "evaluation": 5})
        prepared.save(Dataset("small", log, catalog, groups), self.folder, rules={"titles_cut": 1})
        self.keep()

    def mutated(self, rng: Random, name: str, content: bytes) -> bytes:
        if name.endswith(".json"):
            return mutate_json(rng, json.loads(content))
        changed = mutate(rng, content)
        return changed[: len(content)].ljust(len(content)) if rng.randrange(4) else changed

    def read_folder(self) -> None:
        dataset = prepared.load(self.folder)
        assert len(dataset.interactions) == len(dataset.interactions.item)
        for users in dataset.split.users.values():
            assert users.ndim == 1
