"""What must not change what is read: time zones, paths, the types of columns; and scales of any numbers."""

import json
import os
import shutil
import time
from pathlib import Path
from random import Random

import duckdb
import numpy as np
from ml_collections import ConfigDict

from configs.base import base
from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.columns import UNITS, literal, name
from r2rec_jax.data.rating_scale import COUNTS, NONE, STARS, Scale
from r2rec_jax.data.raw_files import MOST
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.prompts.wording import WORDINGS, wording
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.untrusted import parse_json
from r2rec_jax.teachers.mentions import Ratings
from tests.fuzz.case import Target
from tests.fuzz.data import check_log
from tests.fuzz.mutate import ODD, mutate_json, text_of

USERS, ITEMS = 3, 6
FOLDERS = (
    *("plain", "rating=5", "user=1/item=2", "a[b]*", "sp ace?", "qu'o\"te", "~", "é=ü", "$(x)", "-r", "x;y"),
)
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Europe/Berlin", "XXX-13:30", "no/zone")
FORMATS = (
    *("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.123456", "%Y-%m-%dT%H:%M:%SZ"),
    *("%Y-%m-%dT%H:%M:%S+05:30", "%Y-%m-%d %H:%M:%S-02", "%s", "%s.5", "%d/%m/%Y", "%Y"),
)
TYPES = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UINTEGER", "FLOAT", "DOUBLE", "DECIMAL(18,3)"),
    *("VARCHAR", "BOOLEAN", "DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
    *("TIMESTAMPTZ", "TIME", "BLOB", "UUID", "INTEGER[]", "VARCHAR[]", "STRUCT(a INTEGER)"),
    *("MAP(VARCHAR, INTEGER)", "INTERVAL"),
)


def settings(folder: Path, file: str) -> ConfigDict:
    config = base().data
    config.update({"source": "table", "raw": str(folder), "min_likes": 1, "candidates": 2})
    config.sizes = ConfigDict({"evaluation": 1})
    config.table.ratings = file
    return config


class Places(Target):
    """One table in a plain folder and UTC, and in an odd folder and another zone: read alike, or refused."""

    def make(self, rng: Random) -> bytes:
        moment = time.gmtime(rng.randrange(700_000_000, 2_000_000_000))
        said = {
            "folder": rng.choice((*FOLDERS, text_of(rng.choice(ODD))[:60])),
            "zone": rng.choice(ZONES),
            "kind": rng.choice(("csv", "jsonl", "tsv")),
            "times": [time.strftime(rng.choice(FORMATS), moment) for _ in range(rng.randrange(1, 4))],
        }
        return mutate_json(rng, said) if rng.randrange(4) == 0 else json.dumps(said).encode()

    def read(self, data: bytes) -> None:
        said = self._parsed(data)
        usual, zone = self._logged(self.folder / "plain", "UTC", said), said["zone"]
        odd = self.folder / "odd" / said["folder"].strip("/").replace("..", "_")
        try:
            odd.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError):
            raise UserError("no name of a folder") from None
        found = self._logged(odd, zone, said)
        shutil.rmtree(self.folder / "odd")
        if isinstance(usual, UserError):
            assert isinstance(found, UserError)
            raise usual
        assert not isinstance(found, UserError), found
        for one, other in zip(usual, found, strict=True):
            assert np.array_equal(one, other)

    def _parsed(self, data: bytes) -> dict:
        try:
            said = parse_json(data)
            assert isinstance(said["folder"], str) and said["kind"] in ("csv", "jsonl", "tsv")
            assert isinstance(said["zone"], str) and "\x00" not in said["zone"]
            said["zone"].encode()
            assert said["times"] and all(isinstance(one, str) for one in said["times"])
        except (ValueError, KeyError, TypeError, AssertionError):
            raise UserError("not a case") from None
        return said

    def _logged(self, folder: Path, zone: str, said: dict) -> tuple | UserError:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"log.{said['kind']}"
        rows = [
            (f"u{u}", f"i{i}", 1 + (u + i) % 5, said["times"][(u * ITEMS + i) % len(said["times"])])
            for u in range(USERS)
            for i in range(ITEMS - u)
        ]
        names = ("user", "item", "rating", "time")
        if said["kind"] == "jsonl":
            text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        else:
            separator = "\t" if said["kind"] == "tsv" else ","
            text = "".join(separator.join(map(str, row)) + "\n" for row in (names, *rows))
        file.write_bytes(text.encode("utf-8", "replace"))
        before = os.environ.get("TZ")
        os.environ["TZ"] = zone
        time.tzset()
        try:
            dataset = make_dataset(settings(folder, file.name), staging=self.folder / "staging")
        except UserError as error:
            return error
        finally:
            os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
            time.tzset()
            file.unlink()
            shutil.rmtree(self.folder / "staging", ignore_errors=True)
        log = dataset.interactions
        return log.user, log.item, log.rating, log.time, dataset.split.truth


class Types(Target):
    """A Parquet table whose columns have any types: read, or refused with the column's name."""

    def make(self, rng: Random) -> bytes:
        columns = {
            "user": ("INTEGER", "range % 3"),
            "item": ("INTEGER", "range"),
            "rating": ("DOUBLE", "1 + range % 5"),
            "time": ("TIMESTAMP", "to_timestamp(1e9 + range)"),
            "genres": ("VARCHAR[]", "['a', 'b']"),
        }
        for one in rng.sample(list(columns), rng.choice((1, 1, 2))):
            value = rng.choice((columns[one][1], columns[one][1], "range", "NULL", "range * 1e18", "0.5"))
            columns[one] = rng.choice(TYPES), value
        return json.dumps({"columns": columns, "unit": rng.choice(list(UNITS))}).encode()

    def read(self, data: bytes) -> None:
        try:
            said = parse_json(data)
            values = {
                ours: f"TRY_CAST({value} AS {type_}) AS {name(ours)}"
                for ours, (type_, value) in said["columns"].items()
                if type_ in TYPES
            }
            file = self.folder / "log.parquet"
            query = f"SELECT {', '.join(values.values())} FROM range(18)"
            duckdb.sql(f"COPY ({query}) TO {literal(file)} (FORMAT parquet)")
        except (ValueError, KeyError, TypeError, AttributeError, duckdb.Error):
            raise UserError("not a case") from None
        config = settings(self.folder, file.name)
        config.table.update({"unit": said.get("unit", "s"), "items_file": file.name, "genres": "genres"})
        config.table.title = "item"
        try:
            dataset = make_dataset(config, rules=Rules(), staging=self.folder / "staging")
        finally:
            shutil.rmtree(self.folder / "staging", ignore_errors=True)
            file.unlink()
        check_log(dataset.interactions, dataset.catalog)
        for ids, column in ((dataset.catalog.user_ids, "user"), (dataset.catalog.item_ids, "item")):
            assert len(set(ids)) == len(ids) and all(one == one.strip() and one for one in ids)
            is_text = said["columns"][column][0] == "VARCHAR"  # text stays as it is
            assert is_text or not any(one.endswith(".0") for one in ids)
        assert dataset.scale.contains(dataset.interactions.rating).all()


class Scales(Target):
    """The ratings of a log: a scale that holds them all, whose words say each of them so that it is read."""

    def make(self, rng: Random) -> bytes:
        step, most = rng.choice((0.1, 0.5, 1, 1, 2, 10, 0.25, rng.random())), rng.choice((2, 6, 11, 101))
        values = [step * rng.randrange(most) for _ in range(rng.randrange(1, 40))]
        values += [rng.choice((1, 2, 3000))] * rng.choice((0, 0, 1, 60))
        return mutate_json(rng, values) if rng.randrange(4) == 0 else json.dumps(values).encode()

    def read(self, data: bytes) -> None:
        try:
            ratings = np.array(parse_json(data), np.float32)
            assert ratings.ndim == 1 and len(ratings) and np.isfinite(ratings).all()
            assert ratings.min() >= 0 and ratings.max() <= MOST
        except (ValueError, TypeError, OverflowError, AssertionError):
            raise UserError("not a case") from None
        scale = Scale.of(ratings)
        assert scale.kind in (STARS, COUNTS, NONE) and scale.contains(ratings).all()
        assert scale.first_like(scale.like_above) > scale.like_above
        if scale.kind == STARS:
            assert scale.least <= scale.like_above < scale.most
            assert scale.contains(np.array(scale.values())).all()
        for each in WORDINGS:
            try:
                words = wording(each, scale)
            except UserError:
                continue
            reader = Ratings(words.scale)
            for value in np.unique(ratings).tolist()[:20]:
                said = words.link_hops[0].format(peer="Person A", rating=words.rating(value), item="it")
                found = reader(said)
                assert scale.kind == NONE or len(found) == 1, (said, found)
                assert scale.kind == NONE or abs(found[0] - value) <= 1e-5 * max(1.0, value), (said, found)
