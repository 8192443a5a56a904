"""What the ratings of a log can be, and so how prompts word them and which of them are likes."""

import dataclasses
import math

STARS, COUNTS, NONE = "stars", "counts", "none"
KINDS = (STARS, COUNTS, NONE)
MOST_STEPS = 100  # of a rating scale; a log with more different whole numbers holds counts


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
        if self.kind == STARS and not (self.least < self.most and 0 < self.step <= self.most - self.least):
            raise ValueError(f"no scale: {self}")

    @property
    def like_above(self) -> float:
        """The default threshold of a like: the middle of the scale, rounded up to a step.

        3 on 1..5 and on 0.5..5, 6 on 2..10. Everything in a log of counts or of bare events is a like.
        """
        if self.kind != STARS:
            return 0.0
        steps = (self.most - self.least) / 2 / self.step
        return self.least + math.ceil(steps - 1e-6) * self.step

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
        if self.kind == COUNTS:
            return rating >= 1
        if self.kind == NONE:
            return rating == 1
        steps = (rating - self.least) / self.step
        return self.least <= rating <= self.most and abs(steps - round(steps)) < 1e-4


FIVE_STARS = Scale()
