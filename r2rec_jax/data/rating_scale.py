"""What the ratings of a log can be, and so how prompts word them and which of them are likes."""

import dataclasses
import math
from typing import Self

import numpy as np

from r2rec_jax.runtime.errors import UserError

STARS, COUNTS, NONE = "stars", "counts", "none"
KINDS = (STARS, COUNTS, NONE)
MOST_STEPS = 100  # of a rating scale; a log with more different whole numbers holds counts
TICKS = 1000  # of a unit: the finest step that is looked for is a thousandth
SLACK = 1e-3  # of a step: what float32 does to a tenth
REMEDY = "set data.scale to LEAST:MOST:STEP, or to counts or none"


@dataclasses.dataclass(frozen=True)
class Scale:
    """The values that a rating can have.

    kind: "stars" for opinions, from `least` (worst) to `most` (best) in steps of `step`; "counts" for how
      often something was played or bought, without an upper end; "none" where a row says only that
      something happened: every rating is then 1.
    """

    kind: str = STARS
    least: float = 1.0
    most: float = 5.0
    step: float = 1.0

    def __post_init__(self):
        numbers = (self.least, self.most, self.step)
        if self.kind not in KINDS or not all(map(math.isfinite, numbers)):
            raise ValueError(f"no scale: {self}")
        span = (self.most - self.least) * (1 + SLACK)
        if self.kind == STARS and not 0 < self.step <= span:
            raise ValueError(f"no scale: {self}")

    @classmethod
    def of(cls, ratings: np.ndarray) -> Self:
        """The scale that the ratings of a log, all of them, seem to be given on.

        Their step is the largest that fits all. A scale that ends at 5 or 10 begins one step above 0, whether
        or not anybody gave the worst rating. Whole numbers above 10 with a long tail are counts.

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
        # Where the scale ends at 5 or 10, 0 is on its grid: 3, 5 is a part of 1..5, and 6, 8, 10 of 2..10.
        step = int(np.gcd.reduce(np.append(ticks[1:] - ticks[0], ticks[-1] if familiar else 0)))
        if len(values) == 1 and familiar:
            step = TICKS
        if step == 0 or (ticks[-1] - ticks[0]) > MOST_STEPS * step:
            what = f"{len(values)} different ratings" if step else "all ratings"
            raise UserError(f"{what} of {least:g} to {most:g} are no scale: {REMEDY}")
        if familiar and ticks[0] > 0:
            least = step / TICKS
        return cls(STARS, least, most, step / TICKS)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The scale that `data.scale` sets; None for "", which leaves it to the source.

        Raises:
          UserError: what is neither LEAST:MOST:STEP nor "counts" or "none".
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
        if scale is None or not scale.holds(scale.most):
            raise UserError(f"data.scale={text!r}: use LEAST:MOST:STEP (1:5:1, 0.5:5:0.5), counts or none")
        return scale

    def __str__(self) -> str:
        if self.kind == STARS:
            return f"{self.least:g} to {self.most:g} in steps of {self.step:g}"
        return "counts of at least 1" if self.kind == COUNTS else "1, of rows that only say what happened"

    @property
    def like_above(self) -> float:
        """The default threshold of a like: the middle of the scale, rounded up to a step.

        3 on 1..5 and on 0.5..5, 6 on 2..10, 0 on 0..1. In a log of counts or of bare events all are likes.
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
        """Every value of a scale of stars, the least first; of the others none."""
        if self.kind != STARS:
            return []
        return [self.least + k * self.step for k in range(round((self.most - self.least) / self.step) + 1)]

    def turned(self, rating: float) -> float:
        """The rating as far from the other end of the scale, 5 for 1; of a count or an event itself."""
        return self.least + self.most - rating if self.kind == STARS else rating

    def holds(self, rating: float) -> bool:
        """Whether a rating can have this value."""
        return bool(self.held(np.array([rating]))[0])

    def held(self, ratings: np.ndarray) -> np.ndarray:
        """`holds` of many: bool of their shape."""
        if self.kind == COUNTS:
            return ratings >= 1
        if self.kind == NONE:
            return ratings == 1
        steps = (ratings.astype(np.float64) - self.least) / self.step
        inside = (steps > -SLACK) & (ratings < self.most + SLACK * self.step)
        return inside & (np.abs(steps - np.rint(steps)) < SLACK)


FIVE_STARS = Scale()
