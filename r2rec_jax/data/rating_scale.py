"""The rating scale of a log. It determines how prompts word ratings and which ratings are likes."""

import dataclasses
import math
from typing import Self

import numpy as np

from r2rec_jax.runtime.errors import UserError

STARS, COUNTS, NONE = "stars", "counts", "none"
KINDS = (STARS, COUNTS, NONE)
MOST_STEPS = 100  # largest number of steps of a detected scale
TICKS = 1000  # per unit: the finest step that is detected is 1/1000
SLACK = 1e-3  # tolerance as a fraction of a step, for float32 rounding
REMEDY = "set data.scale to LEAST:MOST:STEP, or to counts or none"


@dataclasses.dataclass(frozen=True)
class Scale:
    """The values that a rating can have.

    kind: "stars" for opinions, from `least` (worst) to `most` (best) in steps of `step`.
      "counts" for numbers of plays or purchases, without an upper limit.
      "none" for interactions without a rating, where every rating is 1.
    """

    kind: str = STARS
    least: float = 1.0
    most: float = 5.0
    step: float = 1.0

    def __post_init__(self):
        numbers = (self.least, self.most, self.step)
        if self.kind not in KINDS or not all(map(math.isfinite, numbers)):
            raise ValueError(f"not a scale: {self}")
        span = (self.most - self.least) * (1 + SLACK)
        if self.kind == STARS and not 0 < self.step <= span:
            raise ValueError(f"not a scale: {self}")

    @classmethod
    def of(cls, ratings: np.ndarray) -> Self:
        """Detects the scale from all ratings of a log.

        The step is the largest that fits all ratings. A scale that ends at 5 or 10 begins one step above 0,
        even if the lowest rating does not occur. Whole numbers above 10 with a long tail are counts.

        Raises:
          UserError: no scale fits.
        """
        values = np.unique(np.asarray(ratings, np.float64))
        least, most = float(values[0]), float(values[-1])
        if least == most == 1:
            return cls(NONE, 1.0, 1.0, 1.0)
        whole = bool(np.all(values == np.rint(values)))
        if whole and most > 10 and least >= 1 and np.median(ratings) < least + (most - least) / 4:
            return cls(COUNTS, 1.0, most, 1.0)
        ticks = np.rint(values * TICKS).astype(np.int64)
        familiar = most in (5, 10)
        if np.abs(values * TICKS - ticks).max() > TICKS * 1e-6 * max(1.0, most):
            raise UserError(f"ratings of {least:g} to {most:g} have no common step: {REMEDY}")
        # A scale that ends at 5 or 10 has 0 on its grid: 3, 5 is part of 1..5, and 6, 8, 10 of 2..10.
        step = int(np.gcd.reduce(np.append(ticks[1:] - ticks[0], ticks[-1] if familiar else 0)))
        if len(values) == 1 and familiar:
            step = TICKS
        if step == 0 or (ticks[-1] - ticks[0]) > MOST_STEPS * step:
            what = f"{len(values)} different ratings" if step else "all ratings"
            raise UserError(f"{what} of {least:g} to {most:g} fit no scale: {REMEDY}")
        if familiar and ticks[0] > 0:
            least = step / TICKS
        return cls(STARS, least, most, step / TICKS)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parses the value of `data.scale`. None for "", which means the source's scale.

        Raises:
          UserError: `text` is neither LEAST:MOST:STEP nor "counts" or "none".
        """
        if text == "":
            return None
        if text in (COUNTS, NONE):
            return cls(text, 1.0, 1.0, 1.0)
        try:
            least, most, step = map(float, text.split(":"))
            scale = cls(STARS, least, most, step)
        except ValueError:
            scale = None
        if scale is None or not scale.contains(np.array([scale.most]))[0]:
            raise UserError(f"data.scale={text!r}: use LEAST:MOST:STEP (1:5:1, 0.5:5:0.5), counts or none")
        return scale

    def __str__(self) -> str:
        if self.kind == STARS:
            return f"{self.least:g} to {self.most:g} in steps of {self.step:g}"
        return "counts of at least 1" if self.kind == COUNTS else "1 (interactions without ratings)"

    @property
    def like_above(self) -> float:
        """The default threshold of a like: the middle of the scale, rounded up to a step.

        3 on 1..5 and on 0.5..5, 6 on 2..10, 0 on 0..1. In a log of counts or without ratings, every row is
        a like.
        """
        if self.kind != STARS:
            return 0.0
        steps = round((self.most - self.least) / self.step)
        return self.least + min(math.ceil(steps / 2), steps - 1) * self.step

    def first_like(self, like_above: float) -> float:
        """The lowest rating above `like_above`: 4 on 1..5 with a threshold of 3."""
        if self.kind != STARS:
            return 1.0
        steps = math.floor((like_above - self.least) / self.step + 1e-6) + 1
        return self.least + max(0, steps) * self.step

    def values(self) -> list[float]:
        """All values of a scale of stars, ascending. Empty for other scales."""
        if self.kind != STARS:
            return []
        return [self.least + k * self.step for k in range(round((self.most - self.least) / self.step) + 1)]

    def turned(self, rating: float) -> float:
        """The rating mirrored on a scale of stars, e.g. 5 for 1. Other ratings are returned unchanged."""
        return self.least + self.most - rating if self.kind == STARS else rating

    def contains(self, ratings: np.ndarray) -> np.ndarray:
        """Which ratings are values of the scale: bool of the shape of `ratings`."""
        if self.kind == COUNTS:
            return ratings >= 1
        if self.kind == NONE:
            return ratings == 1
        steps = (ratings.astype(np.float64) - self.least) / self.step
        inside = (steps > -SLACK) & (ratings < self.most + SLACK * self.step)
        return inside & (np.abs(steps - np.rint(steps)) < SLACK)


FIVE_STARS = Scale()
