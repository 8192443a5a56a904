"""What is done with each oddity of raw data, and how often it was: never silently.

| oddity | rule | count |
|---|---|---|
| a user rates an item again | the earliest rating stays | ratings_repeated |
| a time outside 1990..2100 | the row goes if at most 1% are, else an error | ratings_with_impossible_time |
| a rating of 0 on Amazon's scale of 1 to 5 | the row goes | ratings_of_zero_stars |
| blanks around an id | taken off | ids_with_blanks_around |
| whole numbers all, some written 5.0 | read as 5 | columns_of_whole_numbers_with_a_fraction |
| no title, or a blank one | "item ID" | titles_missing |
| HTML entities in a title | decoded | titles_with_html_entities |
| a title longer than 300 characters | cut there | titles_cut |
| a genre or trait longer than that | cut there | labels_cut |
| more than 50 genres of an item | the first stay | items_with_many_genres |
| a year that is no year | none | years_unreadable |
| a list of genres that is none | none | items_with_unreadable_categories |
| UTF-8 lines in a latin-1 file | read as UTF-8 | titles_read_as_utf8 |
| U+FFFD, left by somebody's wrong decoding | stays | titles_with_lost_characters |
| a rated item that the items file lacks | kept, without facts | items_not_listed |
| a user that the users file lacks | kept, without facts | users_not_listed |
| an item or user listed again | the first stays | items_repeated, users_repeated |
| items of one title and year | shown as "Heat (version 1)" and so on | items_told_apart_by_a_version |
| a listed item nobody rated | MovieLens: kept; elsewhere left out | items_never_rated, items_left_out |
| a listed user without ratings | left out | users_left_out |
| too few negatives of the kind asked for | uniform ones | negatives_drawn_uniformly_instead |

A rating that is no number, NaN or out of range, an id that is missing, a line that cannot be parsed: an
error with file and place, since no rule could tell what was meant. `LIMITS` says which shares of the others
are too much.
"""

import collections
import dataclasses
import html
import re
from collections.abc import Sequence

import numpy as np
from absl import logging

from r2rec_jax.data.columns import UNITS
from r2rec_jax.data.interactions import Interactions
from r2rec_jax.data.rating_scale import Scale
from r2rec_jax.data.timestamp_ties import begins_moment, shuffled
from r2rec_jax.runtime.errors import UserError

EARLIEST, LATEST = 631_152_000, 4_102_444_800  # 1990-01-01 and 2100-01-01, UTC, seconds
FEW = 0.01
LONGEST_TITLE = 300
MOST_LABELS = 50
LOST = "\ufffd"

MANY = 0.1  # a share of the things that a count is about: worth a warning
ALL = 1.0
# Counts that are judged: what they are counts of, and the share from which on the data are refused. The
# others only say what was put right, or what the files have beyond the log.
LIMITS = {
    "ratings_repeated": ("ratings", None),  # a log of purchases may have many
    "ratings_with_impossible_time": ("ratings", ALL),  # refused above FEW already
    "ratings_of_zero_stars": ("ratings", ALL),
    "titles_missing": ("titles", ALL),
    "titles_cut": ("titles", None),
    "titles_with_lost_characters": ("titles", None),
    "years_unreadable": ("years", ALL),
    "items_with_unreadable_categories": ("genres", ALL),
    "items_with_many_genres": ("genres", None),
    "labels_cut": ("genres", None),
    "items_not_listed": ("items", ALL),
    "items_repeated": ("items", None),
    "users_not_listed": ("users", ALL),
    "users_repeated": ("users", None),
    "negatives_drawn_uniformly_instead": ("negatives", None),
}


# With the semicolon only: "Q&notes" is no entity.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def decode_entities(text: str) -> str:
    """`text` with its HTML entities decoded, once."""
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text)


@dataclasses.dataclass(frozen=True, eq=False)
class Clock:
    """How a log's rows were put in order.

    real: by times; else by their places in the file. begins: bool[N], whether a row is later than the user's
    row before it. place: int64[N], the rows' places among the `rows` of the file that are used.
    """

    real: bool
    begins: np.ndarray
    place: np.ndarray
    rows: int


@dataclasses.dataclass
class Rules:
    """Applies the rules and counts.

    tie_seed: puts equal times in random order; None: the file's.
    scale: of the ratings; None until a log is read, which is then on its source's own or on a detected one.
    clock: of the log that was read.
    """

    tie_seed: int | None = None
    scale: Scale | None = None
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    warnings: list[str] = dataclasses.field(default_factory=list)
    clock: "Clock | None" = None

    def log(
        self, *, user, item, rating, time, fine=None, n_users: int, n_items: int, where: str,
        unit: str = "s", ordered: bool = False, own: Scale | None = None, zero_is_none: bool = False,
    ) -> Interactions:  # fmt: skip
        """Columns in file order to a sorted log.

        time: seconds, and `fine` nanoseconds within them, of a file that writes times in `unit`. The second
          decides no more than the order. If `ordered`, times are places in the file, and say nothing else.
        own: the source's scale. zero_is_none: a 0 stands for no rating there.

        Raises:
          UserError: too many impossible times; the line names `where` and the likely unit. A rating that is
            not on the scale, or ratings on no scale that could be detected.
        """
        kept = self.on_scale(np.asarray(rating), where, own, zero_is_none)
        if not ordered:
            kept &= self._possible(np.asarray(time), unit, where)
        columns = [user, item, rating, time, fine]
        if not kept.all():
            columns = [None if c is None else np.asarray(c)[kept] for c in columns]
        if self.tie_seed is not None:
            order = shuffled(len(columns[0]), self.tie_seed)
            columns = [None if c is None else np.asarray(c)[order] for c in columns]
        log, place = Interactions.ordered(*columns, n_users, n_items)
        self.count("ratings_repeated", len(columns[0]) - len(log))
        self.judge({"ratings": len(kept)}, where)
        self.clock = Clock(not ordered, begins_moment(log, place, columns[-1]), place, len(columns[0]))
        return log

    def on_scale(
        self, rating: np.ndarray, where: str, own: Scale | None, zero_is_none: bool = False
    ) -> np.ndarray:
        """Settles the scale and refuses a rating that is not on it. Which rows have a rating: bool[N]."""
        try:
            self.scale = self.scale or own or Scale.of(rating)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        on_scale = self.scale.held(rating)
        rated = on_scale | ~(zero_is_none & (rating == 0))
        wrong = np.flatnonzero(rated & ~on_scale)
        if len(wrong):
            raise UserError(
                f"{where} row {wrong[0] + 1}: the rating {rating[wrong[0]]:g} is not on the scale of "
                f"{self.scale} ({len(wrong)} are not): correct the file or data.scale"
            )
        self.count("ratings_of_zero_stars", len(rated) - rated.sum())
        return rated

    def title(self, raw: str | None, fallback: str) -> str:
        """The title as it is kept; `fallback` for a missing one."""
        title = raw or ""
        if "&" in title and (decoded := decode_entities(title)) != title:
            title = decoded
            self.count("titles_with_html_entities")
        title = title.strip()
        if len(title) > LONGEST_TITLE:
            title = title[:LONGEST_TITLE].rstrip()
            self.count("titles_cut")
        if LOST in title:
            self.count("titles_with_lost_characters")
        if not title:
            self.count("titles_missing")
        return title or fallback

    def labels(self, names: Sequence[str]) -> tuple[str, ...]:
        """An item's genres as they are kept: no prompt has room for thousands."""
        self.count("items_with_many_genres", len(names) > MOST_LABELS)
        return tuple(map(self.label, names[:MOST_LABELS]))

    def label(self, name: str) -> str:
        """A genre or a trait as it is kept."""
        self.count("labels_cut", len(name) > LONGEST_TITLE)
        return name[:LONGEST_TITLE]

    def count(self, name: str, times: int = 1) -> None:
        """Adds to a count; one that never happened stays out of the print."""
        if times:
            self.counts[name] += int(times)

    def judge(self, totals: dict[str, int], where: str) -> None:
        """Warns of counts that are a large share of their total, and keeps the warnings.

        totals: how many things of a kind of `LIMITS` there are by now, where these are counted.

        Raises:
          UserError: all of them are.
        """
        for name, (kind, refused) in LIMITS.items():
            count, total = self.counts[name], totals.get(kind, 0)
            if not total or count <= MANY * total:
                continue
            said = f"{where}: {name} {count:,} of {total:,}"
            if refused is not None and count >= refused * total:
                raise UserError(f"{said}: correct the file, or the columns that the config names")
            self.warn(said)

    def warn(self, said: str) -> None:
        """Logs a warning, and keeps it for the end of the command."""
        self.warnings.append(said)
        logging.warning("%s", said)

    def _possible(self, time: np.ndarray, unit: str, where: str) -> np.ndarray:
        def inside(per_second: float) -> np.ndarray:
            return (time * per_second >= EARLIEST) & (time * per_second < LATEST)

        kept = inside(1)
        outside = len(time) - int(kept.sum())
        if outside > FEW * len(time):
            fit = {name: int(inside(UNITS[unit] / ticks).sum()) for name, ticks in UNITS.items()}
            likely = max(fit, key=fit.get)
            hint = "correct them"
            if likely != unit and fit[likely] > len(time) / 2:
                hint = f"they look like '{likely}'"
            raise UserError(
                f"{where}: {outside} of {len(time)} times are outside 1990..2100 in unit '{unit}': {hint}"
            )
        self.count("ratings_with_impossible_time", outside)
        return kept
