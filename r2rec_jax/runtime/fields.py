"""Config sections as typed declarations: a frozen dataclass whose fields carry default, range and help.

    @declaration
    class OptimizerConfig(Section):
        WHERE = "optimizer"
        learning_rate: float = field(5e-5, "Peak learning rate.", POSITIVE)

Config files, flags, checks, --help and docs/reference.md all use these classes. `to_config_dict` turns an
instance into a ConfigDict, on which flags set values. `read` turns a ConfigDict back into an instance.
Modules that declare sections must not import JAX, because --help and the config files import all of them.
"""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.ranges import Range

MISSING = dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class About:
    """The metadata of a field besides its name, type and default.

    help: one sentence, with the unit and the meaning of special values. range: None for free text and
    booleans. section: the declaring class, if the field is a section. named: the field is a dict of such
    sections, with keys chosen by the user. subset: the field has only those fields that differ from the
    config's section of that class.
    """

    help: str
    range: Range | None = None
    section: "type[Section] | None" = None
    named: bool = False
    subset: bool = False


def _declare(about: About, **default) -> Any:
    return dataclasses.field(metadata={"about": about}, **default)


def field(default: Any, help: str, range: Range | None = None) -> Any:
    return _declare(About(help, range), default=default)


def mapping(help: str) -> Any:
    """A dict[str, str] with keys chosen by the user."""
    return _declare(About(help), default_factory=dict)


def required(help: str, range: Range | None = None) -> Any:
    """A field without a default: each config sets it."""
    return _declare(About(help, range))


def section(default: "Section | type[Section]", help: str = "") -> Any:
    """A section with a default instance; given a class, each config sets it."""
    if isinstance(default, type):
        return _declare(About(help, section=default))
    return _declare(About(help, section=type(default)), default=default)


def optional(kind: "type[Section]", help: str = "") -> Any:
    """A section that may be absent (None)."""
    return _declare(About(help, section=kind), default=None)


def named(kind: "type[Section]", help: str) -> Any:
    """A dict[str, kind] of sections with keys chosen by the user."""
    return _declare(About(help, section=kind, named=True), default_factory=dict)


def subset(kind: "type[Section]", help: str, named: bool = False) -> Any:
    """A dict of the fields that differ from the config's section of class `kind`.

    With `named` it is a dict of such dicts, with keys chosen by the user.
    """
    return _declare(About(help, section=kind, named=named, subset=True), default_factory=dict)


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field, required))
def declaration(cls: type) -> type:
    """Decorator of Section classes: a frozen, keyword-only dataclass."""
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


class Section:
    """Base class of all declarations.

    WHERE: dotted name in a config. OTHERS: class of inner sections whose names the user chooses.

    A value outside its declared range raises UserError.
    """

    WHERE: ClassVar[str] = ""
    OTHERS: "ClassVar[type[Section] | None]" = None

    def __post_init__(self):
        for name, about in self.abouts().items():
            check(about, getattr(self, name), _join(self.WHERE, name))

    @classmethod
    def abouts(cls) -> dict[str, About]:
        return {declared.name: declared.metadata["about"] for declared in dataclasses.fields(cls)}

    @classmethod
    def variant(cls, config: ConfigDict) -> "type[Section]":
        """The class that declares `config`, for sections whose fields depend on one of their values."""
        del config  # used by subclasses
        return cls

    @classmethod
    def read(cls, config: "ConfigDict | Self", where: str | None = None) -> Self:
        """See `read`."""
        return read(cls, config, where)


def to_config_dict(section: Section | ConfigDict) -> ConfigDict:
    """The section as a ConfigDict; a ConfigDict is returned unchanged.

    A section that is None is omitted; any other None becomes a placeholder of the field's type.
    """
    if isinstance(section, ConfigDict):
        return section
    config = ConfigDict()
    for declared in dataclasses.fields(section):
        about, value = declared.metadata["about"], getattr(section, declared.name)
        if about.section and value is None:
            continue
        if value is None:
            value = placeholder(typing.get_args(declared.type)[0])  # the type is KIND | None
        elif isinstance(value, Section):
            value = to_config_dict(value)
        elif isinstance(value, dict):
            sections = {
                name: to_config_dict(inner) for name, inner in value.items() if isinstance(inner, Section)
            }
            value = ConfigDict(value | sections)
        config[declared.name] = value
    return config


def read[S: Section](cls: type[S], config: ConfigDict | S, where: str | None = None) -> S:
    """An instance of `cls` with the values of a ConfigDict; an instance is returned unchanged.

    Absent fields get their defaults. `where` is the prefix of dotted names in messages.

    Raises:
      UserError: a field that `cls` does not declare, a missing field without a default, or a value outside
      its
        range.
    """
    if isinstance(config, cls):
        return config
    where, cls = cls.WHERE if where is None else where, cls.variant(config)
    abouts, values = cls.abouts(), {}
    for name, value in config.items():
        full = _join(where, name)
        if name not in abouts:
            raise UserError(f"{full} is unknown: use one of {', '.join(sorted(abouts))}")
        values[name] = _value(abouts[name], value, full)
        check(abouts[name], values[name], full)
    for declared in dataclasses.fields(cls):
        if declared.name not in values and declared.default is declared.default_factory is MISSING:
            raise UserError(f"{_join(where, declared.name)} is missing: {abouts[declared.name].help}")
    return cls(**values)


def _value(about: About, value: object, full: str) -> object:
    """A value of a ConfigDict as the attribute of a Section."""
    if isinstance(value, list | tuple):  # JSON has lists, no tuples
        return tuple(_value(about, member, full) for member in value)
    if not isinstance(value, ConfigDict):
        return value
    if not about.section or about.subset:
        return value.to_dict()
    if about.named:
        return {key: read(about.section, member, _join(full, key)) for key, member in value.items()}
    return read(about.section, value, full)


def values(section: Section | ConfigDict) -> dict[str, Any]:
    """The fields of a Section or ConfigDict by name."""
    return dict(section.items()) if isinstance(section, ConfigDict) else vars(section)


def leaves(cls: type[Section], config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, About, object]]:
    """Yields (dotted name, declaration, value) for the declared fields of a config, in the config's order.

    Undeclared fields, such as a user's own sections, are skipped.
    """
    cls = cls.variant(config)
    abouts = cls.abouts()
    for name, value in config.items():
        about = abouts.get(name)
        if not isinstance(value, ConfigDict):
            if about:
                yield f"{prefix}{name}", about, value
        elif about and about.named:
            for key, member in value.items():
                if isinstance(member, ConfigDict):
                    yield from leaves(about.section, member, f"{prefix}{name}.{key}.")
        elif inner := about.section if about else cls.OTHERS:
            yield from leaves(inner, value, f"{prefix}{name}.")


def check(about: About, value: object, name: str) -> None:
    """Raises UserError if `value` is outside the field's range; `name` is its name in the message."""
    if about.range and value is not None and not about.range.allows(value):
        raise UserError(f"{name}={shown(repr(value), 200)}: use {about.range}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
