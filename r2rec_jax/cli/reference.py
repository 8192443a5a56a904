"""Writes the config fields into docs/reference.md: `make docs`, or `python -m r2rec_jax.cli.reference`."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from configs.declared import Run
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.fields import MISSING, Section
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.ranges import LARGEST, MOST

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"
BEGIN, END = "<!-- config fields: begin -->", "<!-- config fields: end -->"
INTRODUCTION = f"""A config is one of these runs. `--config.SECTION.FIELD=VALUE` sets a field of a section.
`--help` with a `--config` lists the fields of that config. Where a range has no upper end, it is
{MOST} for whole numbers and {LARGEST:g} for others."""
HEAD = "| field | type | default | range | what it is |\n|---|---|---|---|---|"


def with_fields(page: str) -> str:
    """`page` with the tables of all sections between its markers. Raises UserError if it has no markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"docs/reference.md needs the lines {BEGIN} and {END}")
    return "\n\n".join((before + begin, INTRODUCTION, *map(table, declarations()), end + after))


def declarations() -> list[type[Section]]:
    """All declared classes: runs, then sections in the order of the runs' fields, each after its base."""
    kinds = list(dict.fromkeys(_within(Run)))
    return sorted(kinds, key=lambda kind: not issubclass(kind, Run))


def _within(kind: type[Section]) -> Iterator[type[Section]]:
    parent = _parent(kind)
    if parent is not Section and not issubclass(parent, Run):
        yield from _within_alone(parent)
    yield from _within_alone(kind)
    inner = [about.section for about in kind.abouts().values() if about.section]
    for section in (*inner, *([kind.OTHERS] if kind.OTHERS else ()), *kind.__subclasses__()):
        yield from _within(section)


def _within_alone(kind: type[Section]) -> Iterator[type[Section]]:
    """Yields the bases of `kind`, then `kind`."""
    if _parent(kind) is not Section:
        yield from _within_alone(_parent(kind))
    yield kind


def _parent(kind: type[Section]) -> type[Section]:
    return next(base for base in kind.__mro__[1:] if issubclass(base, Section))


def table(kind: type[Section]) -> str:
    """A section's heading, its description, and a row for each field that it declares itself."""
    parent = _parent(kind)
    inherited = parent.__dict__.get("__dataclass_fields__", {})
    own = [one for one in dataclasses.fields(kind) if inherited.get(one.name) is not one]
    heading = f"### `{kind.WHERE}` ({kind.__name__})" if kind.WHERE else f"### {kind.__name__}"
    about = [summary] if (summary := _summary(kind)) else []
    about += [f"The fields of {parent.__name__}, and:"] if inherited else []
    return "\n\n".join((heading, *about, "\n".join((HEAD, *map(_row, own)))))


def _row(one: dataclasses.Field) -> str:
    about = one.metadata["about"]
    allowed = re.sub(rf" to ({MOST}|{re.escape(f'{LARGEST:g}')})\b", "", str(about.range or ""))
    help = about.help or _summary(about.section)
    cells = (f"`{one.name}`", f"`{_type(one.type)}`", _default(one), allowed, help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _summary(kind: type[Section]) -> str:
    """The docstring of `kind`, "" for a dataclass's generated one."""
    return "" if kind.__doc__.startswith(f"{kind.__name__}(") else inspect.cleandoc(kind.__doc__)


def _type(kind: object) -> str:
    """`float | None` and the like, without the modules of classes."""
    return kind.__name__ if type(kind) is type else re.sub(r"(\w+\.)+(?=\w)", "", str(kind))


def _default(one: dataclasses.Field) -> str:
    if one.default_factory is not MISSING:
        return f"`{one.default_factory()!r}`"
    if one.default is MISSING:
        return "each config's own"
    if not isinstance(one.default, Section):
        return f"`{one.default!r}`"
    fields = ((field, getattr(one.default, field.name)) for field in dataclasses.fields(one.default))
    changed = ", ".join(f"`{field.name}={value!r}`" for field, value in fields if value != field.default)
    return changed or "its own"


if __name__ == "__main__":
    write_atomic(PAGE, with_fields(PAGE.read_text(encoding="utf-8")))
    print(f"wrote {PAGE}")
