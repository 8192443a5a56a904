"""What is done with each oddity of raw data, and how often it was: never silently.

| oddity | rule | count |
|---|---|---|
| a user rates an item again | the earliest rating stays | ratings_repeated |
| a time outside 1990..2100 | the row goes if at most 1% are, else an error | ratings_with_impossible_time |
| a rating of 0 on Amazon's scale of 1 to 5 | the row goes | ratings_of_zero_stars |
| no title, or a blank one | "item ID" | titles_missing |
| HTML entities in a title | decoded | titles_with_html_entities |
| a title longer than 300 characters | cut there | titles_cut |
| a genre or trait longer than that | cut there | labels_cut |
| more than 50 genres of an item | the first stay | items_with_many_genres |
| UTF-8 lines in a latin-1 file | read as UTF-8 | titles_read_as_utf8 |
| U+FFFD, left by somebody's wrong decoding | stays | titles_with_lost_characters |
| a rated item that the items file lacks | kept, without facts | items_not_listed |
| an item listed again | the first stays | items_repeated |
| a listed item nobody rated | MovieLens: kept; elsewhere left out | items_never_rated, items_left_out |

A rating that is no number, NaN or out of range, an id that is missing, a line that cannot be parsed: an
error with file and place, since no rule could tell what was meant.
"""

import collections
import dataclasses
import html
import re
from collections.abc import Sequence

import numpy as np

from r2rec_jax.data.interactions import Interactions
from r2rec_jax.data.scale import Scale
from r2rec_jax.runtime.errors import UserError

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
EARLIEST, LATEST = 631_152_000, 4_102_444_800  # 1990-01-01 and 2100-01-01, UTC, seconds
FEW = 0.01
LONGEST_TITLE = 300
MOST_LABELS = 50
LOST = "\ufffd"


# With the semicolon only: "Q&notes" is no entity.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def decode_entities(text: str) -> str:
    """`text` with its HTML entities decoded, once."""
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text)


@dataclasses.dataclass
class Rules:
    """Applies the rules and counts.

    tie_seed: puts equal times in random order; None: the file's.
    scale: of the ratings; None until a log is read, which is then on its source's own or on a detected one.
    """

    tie_seed: int | None = None
    scale: Scale | None = None
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def log(
        self,
        user,
        item,
        rating,
        time,
        *,
        n_users: int,
        n_items: int,
        where: str,
        unit: str = "s",
        own: Scale | None = None,
        zero_is_none: bool = False,
    ) -> Interactions:
        """Columns in file order, `time` in `unit`, to a sorted log in seconds.

        `own`: the source's scale; `zero_is_none`: a 0 stands for no rating there.

        Raises:
          UserError: too many impossible times; the line names `where` and the likely unit. A rating that is
            not on the scale, or ratings on no scale that could be detected.
        """
        rated = self._on_scale(np.asarray(rating), where, own, zero_is_none)
        kept = self._possible(np.asarray(time), unit, where) & rated
        if not kept.all():
            user, item, rating, time = (np.asarray(c)[kept] for c in (user, item, rating, time))
        if self.tie_seed is not None:
            order = np.random.default_rng([self.tie_seed, 2]).permutation(len(user))
            user, item, rating, time = (np.asarray(c)[order] for c in (user, item, rating, time))
        log = Interactions.from_log(user, item, rating, time, n_users, n_items)
        self.count("ratings_repeated", len(user) - len(log))
        # Sorted by the finer clock first: two events of one second keep their order.
        return dataclasses.replace(log, time=log.time // UNITS[unit])

    def _on_scale(self, rating: np.ndarray, where: str, own: Scale | None, zero_is_none: bool) -> np.ndarray:
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

    def _possible(self, time: np.ndarray, unit: str, where: str) -> np.ndarray:
        def inside(ticks: int) -> np.ndarray:
            return (time >= EARLIEST * ticks) & (time < LATEST * ticks)

        kept = inside(UNITS[unit])
        outside = len(time) - int(kept.sum())
        if outside > FEW * len(time):
            fit = {name: int(inside(ticks).sum()) for name, ticks in UNITS.items()}
            likely = max(fit, key=fit.get)
            hint = "correct them"
            if likely != unit and fit[likely] > len(time) / 2:
                hint = f"they look like '{likely}'"
            raise UserError(
                f"{where}: {outside} of {len(time)} times are outside 1990..2100 in unit '{unit}': {hint}"
            )
        self.count("ratings_with_impossible_time", outside)
        return kept
