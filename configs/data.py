"""Data and teacher traces: for launch.prepare and launch.annotate.

    python -m launch.prepare --config=configs/data.py:ml-1m --workdir=runs/ml1m/data
    python -m launch.annotate --config=configs/data.py:ml-1m --workdir=runs/ml1m/annotate

Presets, and the raw files that launch.prepare needs. If they are missing it prints what to fetch from where:

    --config=configs/data.py:generated          nothing
    --config=configs/data.py:ml-100k            data/ml-100k unpacked; as for all MovieLens also the archive:
        --config.data.raw=ml-100k.zip
    --config=configs/data.py:ml-1m              data/ml-1m unpacked; the default
    --config=configs/data.py:mini               the same, prompts and more users for R2Rec-mini
    --config=configs/data.py:ml-latest-small    ratings.csv and movies.csv; also ml-20m, ml-25m, ml-32m
    --config=configs/data.py:amazon-book        data/amazon-2023 with Books.jsonl.gz and meta_Books.jsonl.gz
    --config=configs/data.py:amazon-electronics the same with Electronics
    --config=configs/data.py:amazon-2023 --config.data.category=Toys_and_Games
        any other category of that release
    --config=configs/data.py:amazon-2018        data/amazon-2018: CATEGORY_5.json.gz, meta_CATEGORY.json.gz
    --config=configs/data.py:amazon-2014        data/amazon-2014: reviews_CATEGORY_5.json.gz, meta_...
    --config=configs/data.py:table --config.data.raw=data/mine --config.data.table.ratings=log.parquet \\
        --config.data.table.user=customer --config.data.table.time=bought --config.data.table.unit=ms
        your own text tables (.csv, .tsv, .dat, .txt, RecBole's .inter, ...), JSON or Parquet: one rating per
        row, columns named in the config; titles, years and genres from `table.items_file`, demographics from
        `table.users_file`, if you have them. Without a header columns are 1, 2, ...; separator, header,
        encoding and rating scale are detected and printed, or set by `table.separator`, ..., `scale`
    --config=configs/data.py:implicit --config.data.raw=data/amazon-games \\
        --config.data.table.ratings=log.csv --config.data.table.items_file=items.tsv
        one purchase per row, in the order of time, without ratings and times: `table.rating` and `table.time`
        are empty (either may be set). Prompts and traces then mention no ratings. This example has 220,216
        purchases of games (RUCAIBox/LLMRank) with a title each; popularity has HR@1 .26

Candidates are frozen here: --config.data.candidates=100 --config.data.negatives=hard (or popularity).
Amazon Books is 29.5M reviews: expect minutes to parse, about 3 GB of memory, and as much disk beside the
workdir while it runs.
"""

from ml_collections import ConfigDict

from configs.base import base, mini, preset_of, tiny

MOVIELENS = ("ml-100k", "ml-1m", "ml-latest-small", "ml-20m", "ml-25m", "ml-32m")
# The paper's two Amazon data sets, from the last release before the paper.
PAPER = {"amazon-book": ("Books", "books"), "amazon-electronics": ("Electronics", "products")}
OWN = ("table", "implicit")
AMAZON = ("amazon-2023", "amazon-2018", "amazon-2014")


def get_config(preset: str | None = None) -> ConfigDict:
    c = base()
    preset = preset_of(preset, ("generated", "mini", *MOVIELENS, *PAPER, *AMAZON, *OWN)) or "ml-1m"
    if preset == "generated":
        return tiny(c)
    if preset == "mini":
        return mini(c)
    source = "table" if preset in OWN else "amazon-2023" if preset in PAPER else preset
    c.data.update({"source": source, "raw": f"data/{source}"})
    if preset in PAPER:
        c.data.category, c.prompt.wording = PAPER[preset]
    elif preset in AMAZON or preset in OWN:
        c.prompt.wording = "products"
    if preset == "implicit":
        c.data.table.update({"rating": "", "time": ""})
        c.annotate.tasks = ("ranking",)
    if preset != "ml-1m":
        run = preset.replace("-", "")
        c.data.folder, c.annotate.folder = f"runs/{run}/data", f"runs/{run}/annotate"
    if preset in ("ml-100k", "ml-latest-small"):
        # 943 and 610 users, too few for the paper's group sizes.
        c.data.sizes = ConfigDict({"sft": 200, "grpo": 100, "validation": 50, "evaluation": 200})
    return c
