"""Reads Amazon reviews: the 2023 release, and the 5-core files of 2018 and 2014.

Reviews and items are JSON lines (.gz or unpacked) of one category. The item id is `parent_asin` in the 2023
release, which merges colours and editions, and `asin` in the older ones. Users and items are numbered by
sorted raw id. Items without a rating are dropped. Genres are the item's categories without the first, which
is the category of the whole file. There are no years and no demographics.

The item files of 2014 contain Python literals instead of JSON. The reader first converts them line by line.
"""

import ast
import dataclasses
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from r2rec_jax.data.cleaning import Rules, decode_entities
from r2rec_jax.data.columns import LONGEST_LINE
from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.data.mapped_text import LabelsBuilder, Texts, Traits
from r2rec_jax.data.rating_scale import Scale
from r2rec_jax.data.raw_files import Stage, find
from r2rec_jax.data.text_format import STRICT_CSV
from r2rec_jax.runtime.errors import UserError

LONGEST_LITERAL = 1 << 20  # characters; parsing a Python literal takes hundreds of times its size in memory


@dataclasses.dataclass(frozen=True)
class Release:
    """URLs of a release's files, with a {category} placeholder, and the names of their fields."""

    reviews: str
    items: str
    columns: dict[str, str]
    unit: str
    facts: dict[str, str]
    cite: str


RELEASES = {
    "amazon-2023": Release(
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/review_categories/{category}.jsonl.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/meta_categories/meta_{category}.jsonl.gz",
        {"user": "user_id", "item": "parent_asin", "rating": "rating", "time": "timestamp"},
        "ms",
        {"id": "parent_asin", "title": "title", "genres": "categories"},
        "Hou et al. 2024, Amazon Reviews 2023",
    ),
    "amazon-2018": Release(
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/{category}_5.json.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/metaFiles2/meta_{category}.json.gz",
        {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"},
        "s",
        {"id": "asin", "title": "title", "genres": "category"},
        "Ni, Li and McAuley 2019, Amazon Review Data 2018",
    ),
    "amazon-2014": Release(
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_{category}_5.json.gz",
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_{category}.json.gz",
        {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"},
        "s",
        {"id": "asin", "title": "title", "genres": "categories"},
        "He and McAuley 2016, Amazon product data 2014",
    ),
}


def files(folder: str | Path, release: str, category: str) -> tuple[Path, Path]:
    """Paths of the reviews file and the items file, gzipped or not.

    Raises:
      UserError: a file is missing. The message contains the command that downloads it.
    """
    urls = [url.format(category=category) for url in (RELEASES[release].reviews, RELEASES[release].items)]
    names = [url.rpartition("/")[2] for url in urls]
    paths = [find(folder, name, name.removesuffix(".gz")) for name in names]
    if None in paths:
        fetch = " ".join(f"-O {url}" for url, path in zip(urls, paths, strict=True) if path is None)
        raise UserError(
            f"{release} {category} is not in {folder}: fetch it with `mkdir -p {folder} && cd {folder} && "
            f"curl -fL -C - {fetch}` (the same command resumes)"
        )
    return tuple(paths)


def read_amazon(
    folder: str | Path, release: str, category: str, stage: Stage, rules: Rules
) -> tuple[Interactions, Catalog]:
    """Reads one category of one release ("amazon-2023", "amazon-2018", "amazon-2014").

    Raises:
      UserError: a missing or damaged file, or a bad value. The message contains the file and line or row.
    """
    form = RELEASES[release]
    reviews, items = files(folder, release, category)
    ratings = stage.ratings(reviews, form.columns, unit=form.unit, form=STRICT_CSV)
    converted = _as_json(items, stage.work / "items.jsonl") if release == "amazon-2014" else items
    staged = stage.facts(converted, form.facts, form=STRICT_CSV, shown=items)
    ratings.require_match("items", items, staged)
    log = rules.log(
        **ratings.columns(),
        n_users=ratings.n_users,
        n_items=ratings.n_items,
        where=str(reviews),
        unit=form.unit,
        own=Scale(),
        zero_is_none=True,
    )
    genres = LabelsBuilder()

    def titles() -> Iterator[str]:
        for item, listed, title, categories in ratings.facts("items", staged, ["title", "genres"]):
            rules.count("items_not_listed", listed == 0)
            rules.count("items_repeated", max(0, listed - 1))
            genres.append(rules.labels(_categories(categories, rules)))
            yield rules.title(title, f"item {item}")

    title = Texts.of(titles())
    rules.count("items_left_out", ratings.left_out("items", staged))
    rules.check_limits(dict.fromkeys(("items", "titles", "genres"), log.n_items), str(items))
    nothing = Traits({}, np.empty((log.n_users, 0), np.int32))
    return log, Catalog(title, np.zeros(log.n_items, np.int32), genres.labels(), nothing, *ratings.all_ids())


def _categories(text: str | None, rules: Rules) -> tuple[str, ...]:
    """Category names from one JSON path, as `["Books", "Fiction"]`, or a list of paths.

    The first name of each path is dropped.
    """
    try:
        paths = json.loads(text) if text else []
    except (ValueError, RecursionError):
        paths = None  # a single word, or a list truncated at raw_files.LONGEST_TEXT
    if not isinstance(paths, list):
        rules.count("items_with_unreadable_categories")
        return ()
    if not all(isinstance(path, list) for path in paths):
        paths = [paths]
    names = [name for path in paths for name in path[1:] if isinstance(name, str) and name.strip()]
    return tuple(dict.fromkeys(decode_entities(name).strip() for name in names))


def _as_json(path: Path, converted: Path) -> Path:
    """Converts a file with one Python literal per line to JSON lines with the fields that are read."""
    wanted = RELEASES["amazon-2014"].facts.values()
    number = 1
    try:
        with (
            gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as raw,
            open(converted, "w", encoding="utf-8", errors="replace") as out,
        ):
            while line := raw.readline(LONGEST_LINE):
                item = _literal_line(line)
                fields = {name: item[name] for name in wanted if name in item}
                out.write(json.dumps(fields, ensure_ascii=False) + "\n")
                number += 1
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): it is truncated; fetch it again") from error
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(
            f"{path}:{number}: not an item as JSON or a Python literal; correct it or fetch the file again"
        ) from error
    return converted


def _literal_line(line: bytes) -> dict:
    text = line.decode("utf-8").strip()
    try:
        item = json.loads(text)
    except ValueError:
        if len(text) > LONGEST_LITERAL:
            raise
        item = ast.literal_eval(text)
    if not isinstance(item, dict):
        raise ValueError("not an item")
    return item
