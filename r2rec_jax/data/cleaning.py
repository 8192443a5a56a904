"""Cleaning rules for raw data. Every application of a rule is counted.

| irregularity | rule | count |
|---|---|---|
| a repeated (user, item) pair | keep the earliest rating | ratings_repeated |
| a time outside 1990..2100 | drop the row; error if more than 1% | ratings_with_impossible_time |
| a rating of 0 on Amazon's scale of 1 to 5 | drop the row | ratings_of_zero_stars |
| whitespace around an id | strip | ids_with_blanks_around |
| a column of whole numbers, some written 5.0 | read as 5 | columns_of_whole_numbers_with_a_fraction |
| a missing or blank title | use "item ID" | titles_missing |
| HTML entities in a title | decode | titles_with_html_entities |
| a title longer than 300 characters | truncate | titles_cut |
| a genre or trait longer than 300 characters | truncate | labels_cut |
| an item with more than 50 genres | keep the first 50 | items_with_many_genres |
| an unreadable year | treat as missing | years_unreadable |
| an unreadable list of genres | treat as missing | items_with_unreadable_categories |
| UTF-8 lines in a latin-1 file | read as UTF-8 | titles_read_as_utf8 |
| U+FFFD from an earlier wrong decoding | keep | titles_with_lost_characters |
| a rated item missing from the items file | keep, without metadata | items_not_listed |
| a user missing from the users file | keep, without metadata | users_not_listed |
| a repeated id in the items or users file | keep the first row | items_repeated, users_repeated |
| items with equal title and year | show as "Heat (version 1)" etc. | items_told_apart_by_a_version |
| a listed item without ratings | MovieLens: keep; others: drop | items_never_rated, items_left_out |
| a listed user without ratings | drop | users_left_out |
| too few popular or hard negatives | fill with uniform ones | negatives_drawn_uniformly_instead |

A rating that is not a number or out of range, a missing id and an unparseable line are errors with file and
line or row. `LIMITS` defines which counts lead to a warning or an error.
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

MANY = 0.1  # share of its total above which a count leads to a warning
ALL = 1.0
# count name -> (what the total counts, share from which `Rules.check_limits` raises; None: it never does).
# Counts that are not listed report a repair, or rows of metadata files without ratings.
LIMITS = {
    "ratings_repeated": ("ratings", None),  # a log of purchases may have many
    "ratings_with_impossible_time": ("ratings", ALL),  # shares above FEW raise an error earlier
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


# The semicolon is required: "Q&notes" contains no entity.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def decode_entities(text: str) -> str:
    """`text` with its HTML entities decoded, once."""
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text)


@dataclasses.dataclass(frozen=True, eq=False)
class Clock:
    """How a log's rows were sorted.

    real: True if by time, False if by position in the file.
    begins: bool[N], whether a row is later than the same user's previous row.
    place: int64[N], the position of each row among the `rows` rows of the file that are used.
    """

    real: bool
    begins: np.ndarray
    place: np.ndarray
    rows: int


@dataclasses.dataclass
class Rules:
    """Applies the cleaning rules and counts each application.

    tie_seed: seed of a random order of rows with equal times; None keeps the order of the file.
    scale: the rating scale. If None, `log` sets it to the source's scale or detects it.
    clock: the order of the log that was read.
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
        """Converts columns in file order to a sorted log.

        time: seconds, from a file that stores times in `unit`. If `ordered`, positions in the file instead.
        fine: nanoseconds within the second, used only for sorting, or None.
        where: the file, for error messages.
        own: the source's scale.
        zero_is_none: whether a rating of 0 means that there is no rating.

        Raises:
          UserError: too many impossible times (the message contains the likely unit), a rating that is not on
            the scale, or ratings for which no scale could be detected.
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
        self.check_limits({"ratings": len(kept)}, where)
        self.clock = Clock(not ordered, begins_moment(log, place, columns[-1]), place, len(columns[0]))
        return log

    def on_scale(
        self, rating: np.ndarray, where: str, own: Scale | None, zero_is_none: bool = False
    ) -> np.ndarray:
        """Sets the scale if it is not set yet, and returns which rows have a rating: bool[N].

        Raises:
          UserError: a rating that is not on the scale, or no scale could be detected.
        """
        try:
            self.scale = self.scale or own or Scale.of(rating)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        on_scale = self.scale.contains(rating)
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
        """The cleaned title, or `fallback` if it is missing."""
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
        """An item's genres, limited to MOST_LABELS so that they fit in a prompt."""
        self.count("items_with_many_genres", len(names) > MOST_LABELS)
        return tuple(map(self.label, names[:MOST_LABELS]))

    def label(self, name: str) -> str:
        """A genre or trait, truncated to LONGEST_TITLE characters."""
        self.count("labels_cut", len(name) > LONGEST_TITLE)
        return name[:LONGEST_TITLE]

    def count(self, name: str, times: int = 1) -> None:
        """Adds `times` to a count. Counts of zero are not stored, so they are not printed."""
        if times:
            self.counts[name] += int(times)

    def check_limits(self, totals: dict[str, int], where: str) -> None:
        """Warns about counts that are a large share of their total.

        totals: kind of `LIMITS` -> total number, for the kinds to check.

        Raises:
          UserError: a count reaches the share at which `LIMITS` rejects the data.
        """
        for name, (kind, refused) in LIMITS.items():
            count, total = self.counts[name], totals.get(kind, 0)
            if not total or count <= MANY * total:
                continue
            message = f"{where}: {name} {count:,} of {total:,}"
            if refused is not None and count >= refused * total:
                raise UserError(f"{message}: correct the file, or the columns that the config names")
            self.warn(message)

    def warn(self, message: str) -> None:
        """Logs a warning and stores it, so that the command can repeat it at its end."""
        self.warnings.append(message)
        logging.warning("%s", message)

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
