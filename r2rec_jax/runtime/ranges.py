"""Ranges of config fields: numbers, choices, text patterns, and tuples of those.

--help, docs/reference.md and error messages show the `str` of a range.
"""

import dataclasses
import itertools
import re

MOST = 2**31 - 1  # JAX integers have 32 bits
LARGEST = 1e30  # leaves headroom below the float32 maximum for products
SEEDS = 2**32 - 1  # JAX keys and grain shuffles take 32-bit seeds


@dataclasses.dataclass(frozen=True)
class Number:
    """Numbers from `low` to `high`.

    above: `low` is excluded. below: `high` is excluded. off: one more allowed value outside the range.
    """

    low: float
    high: float
    whole: bool = False
    above: bool = False
    below: bool = False
    off: float | None = None

    def allows(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if self.off is not None and value == self.off:
            return True
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        high = str(int(self.high)) if self.whole else f"{self.high:g}"
        text = f"{kind} {'above' if self.above else 'from'} {self.low:g} to {'less than ' * self.below}{high}"
        return text if self.off is None else f"{text}, or {self.off:g}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several strings."""

    names: tuple[str, ...]

    def allows(self, value: object) -> bool:
        return isinstance(value, str) and value in self.names

    def __str__(self) -> str:
        return f"one of {', '.join(name or repr('') for name in self.names)}"


@dataclasses.dataclass(frozen=True)
class Text:
    """A string that matches `pattern`; `like` describes it."""

    pattern: str
    like: str

    def allows(self, value: object) -> bool:
        return isinstance(value, str) and bool(re.fullmatch(self.pattern, value))

    def __str__(self) -> str:
        return self.like


@dataclasses.dataclass(frozen=True)
class Each:
    """A tuple whose members are all in the range `of`.

    fewest: minimum number of members. ascending: strictly ascending. distinct: no member twice.
    """

    of: "Number | Choice | Text | Row"
    fewest: int = 0
    ascending: bool = False
    distinct: bool = False

    def allows(self, value: object) -> bool:
        if not isinstance(value, tuple | list) or len(value) < self.fewest:
            return False
        if not all(self.of.allows(member) for member in value):
            return False
        if self.ascending:
            return all(a < b for a, b in itertools.pairwise(value))
        return not self.distinct or len(set(value)) == len(value)

    def __str__(self) -> str:
        order = ", ascending" if self.ascending else ", none twice" if self.distinct else ""
        return f"a tuple{' of at least one' if self.fewest else ''}, each {self.of}{order}"


@dataclasses.dataclass(frozen=True)
class Row:
    """A tuple with one member per range of `of`. ascending: no member is below the previous one."""

    of: tuple[Number, ...]
    ascending: bool = False

    def allows(self, value: object) -> bool:
        if not isinstance(value, tuple | list) or len(value) != len(self.of):
            return False
        if not all(of.allows(member) for of, member in zip(self.of, value, strict=True)):
            return False
        return not self.ascending or list(value) == sorted(value)

    def __str__(self) -> str:
        return f"({'; '.join(map(str, self.of))}){', ascending' if self.ascending else ''}"


Range = Number | Choice | Text | Each | Row


def whole(low: int, high: int = MOST, off: int | None = None) -> Number:
    return Number(low, high, whole=True, off=off)


def real(low: float, high: float = LARGEST, **ends) -> Number:
    return Number(low, high, **ends)


def one_of(*names: str) -> Choice:
    return Choice(names)


ANY = real(-LARGEST)
POSITIVE = real(0.0, above=True)
SHARE = real(0.0, 1.0)
PART = real(0.0, 1.0, above=True)
LESS_THAN_ONE = real(0.0, 1.0, below=True)
BUCKETS = Each(whole(1), fewest=1, ascending=True)
SEED = whole(0, SEEDS)
