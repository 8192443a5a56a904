"""The `data` section of a config: where ratings come from, their split, and the candidates."""

from r2rec_jax.runtime.fields import Section, declaration, field, section
from r2rec_jax.runtime.ranges import ANY, SEED, Text, one_of, whole

NEGATIVES = ("uniform", "popularity", "hard")
TIES = ("file", "random")


@declaration
class TableConfig(Section):
    """Files of your own in the folder `data.raw`. "" is a file or column that is not there."""

    WHERE = "data.table"
    ratings: str = field("ratings.csv", "File with a row a rating: text, JSON lines or Parquet.")
    items_file: str = field("", "File with a row an item; '': titles are taken from `ratings`.")
    users_file: str = field("", "File with a row a user; '': there are no demographics.")
    user: str = field("user", "Column of user ids.")
    item: str = field("item", "Column of item ids.")
    rating: str = field("rating", "Column of ratings; '': every row is an interaction without a rating.")
    time: str = field("time", "Column of times; '': the rows are in the order of time.")
    unit: str = field("s", "Unit of times that are numbers.", one_of("s", "ms", "us", "ns"))
    title: str = field("title", "Column of item titles.")
    year: str = field("", "Column of years of release; '': none.")
    genres: str = field("", "Column of genres; '': none.")
    demographics: tuple[str, ...] = field((), "Columns of `users_file` that prompts show.")
    items_id: str = field("", "Column of ids in `items_file`; '': called as `item`.")
    users_id: str = field("", "Column of ids in `users_file`; '': called as `user`.")
    separator: str = field("", "Separator of columns in text files; '': detected.")
    header: str = field(
        "",
        "Whether text files begin with column names; without, columns are '1', '2', ...; '': detected.",
        one_of("", "yes", "no"),
    )
    encoding: str = field("", "Encoding of text files; '': detected.")
    quote: str = field("", "Quote character of text files; '': detected.", one_of("", '"', "'", "none"))


@declaration
class SizesConfig(Section):
    """Users of each group of the split. No user is in two groups."""

    WHERE = "data.sizes"
    sft: int = field(500, "Users whose teacher traces SFT learns from.", whole(0))
    grpo: int = field(500, "Users whose prompts GRPO samples.", whole(0))
    validation: int = field(100, "Users ranked during training.", whole(0))
    evaluation: int = field(1000, "Users ranked by launch.eval and launch.baselines.", whole(0))


@declaration
class DataConfig(Section):
    """Ratings, the split of users, and the candidates of each."""

    WHERE = "data"
    folder: str = field("runs/ml1m/data", "Folder of the prepared data, which launch.prepare writes.")
    source: str = field(
        "ml-1m", "Data set: a name of r2rec_jax/data/sources.py, or table for your own files."
    )
    raw: str = field("data/ml-1m", "Folder of the raw files; for MovieLens also the .zip itself.")
    category: str = field("Books", "Category of an Amazon release.")
    table: TableConfig = section(TableConfig())
    seed: int = field(0, "Seed of the split, of its candidates and of generated users.", SEED)
    sizes: SizesConfig = section(SizesConfig())
    min_likes: int = field(6, "Ratings above `like_above` that make a user eligible.", whole(0))
    scale: str = field(
        "",
        "Values of ratings; none: all are 1; '': the source's own, or detected in a table.",
        Text(r"|counts|none|[^:]+:[^:]+:[^:]+", "LEAST:MOST:STEP (as 1:5:1), counts, none or ''"),
    )
    like_above: float | None = field(
        None, "Ratings above it are likes; None: the middle of the scale, rounded up to a step.", ANY
    )
    ties: str = field("file", "Order of equal times: that of the file, or random.", one_of(*TIES))
    candidates: int = field(
        20, "Candidates a user; at most the items that the most active user has not rated.", whole(2)
    )
    negatives: str = field(
        "uniform",
        "How negative candidates are drawn; hard: items rated together with the user's.",
        one_of(*NEGATIVES),
    )
    before_target_time: bool = field(
        False, "Whether chains hide all ratings from the time of the held-out item on."
    )
    generated_users: int = field(2100, "Users of the generated data set.", whole(1))
    workers: int = field(
        2,
        "Processes that make training batches; 0: threads of this process. Batches do not depend on it.",
        whole(0, 1024),
    )
