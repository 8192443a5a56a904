"""Config sections as typed declarations: a frozen dataclass whose fields carry default, range and help.

    @declaration
    class OptimizerConfig(Section):
        WHERE = "optimizer"
        learning_rate: float = field(5e-5, "Peak learning rate.", POSITIVE)

Config files, flags, checks, --help and docs/reference.md come from these classes. `to_config_dict` makes the
section of a config, on which flags set values; `read` makes an instance of such a section. Nothing here
imports JAX, and no module that declares sections may: --help and the config files load them all.
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
    """What a declaration says of a field besides its name, type and default.

    help: one sentence, with the unit and the meaning of special values. range: None for free text and
    booleans. section: of a section, the class that declares it. named: any number of those, by names of the
    user's. subset: only the fields that differ from the config's section of that class.
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
    """Texts by names of the user's: dict[str, str]."""
    return _declare(About(help), default_factory=dict)


def required(help: str, range: Range | None = None) -> Any:
    """A field without a default: each config states its own value."""
    return _declare(About(help, range))


def section(default: "Section | type[Section]", help: str = "") -> Any:
    """A section, by default that instance; given a class, each config states its own."""
    if isinstance(default, type):
        return _declare(About(help, section=default))
    return _declare(About(help, section=type(default)), default=default)


def optional(kind: "type[Section]", help: str = "") -> Any:
    """A section that a config may lack: None."""
    return _declare(About(help, section=kind), default=None)


def named(kind: "type[Section]", help: str) -> Any:
    """Sections by names of the user's: dict[str, kind]."""
    return _declare(About(help, section=kind, named=True), default_factory=dict)


def subset(kind: "type[Section]", help: str, named: bool = False) -> Any:
    """Those fields of a section that differ from the config's own, a dict; `named`: dicts of them by name."""
    return _declare(About(help, section=kind, named=named, subset=True), default_factory=dict)


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field, required))
def declaration(cls: type) -> type:
    """The decorator of a Section."""
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


class Section:
    """Base of all declarations.

    WHERE: its dotted name in a config. OTHERS: what declares inner sections of the user's own names.

    An instance holds values of the declared ranges: another one raises UserError.
    """

    WHERE: ClassVar[str] = ""
    OTHERS: "ClassVar[type[Section] | None]" = None

    def __post_init__(self):
        for name, about in self.abouts().items():
            check(about, getattr(self, name), _join(self.WHERE, name))

    @classmethod
    def abouts(cls) -> dict[str, About]:
        return {one.name: one.metadata["about"] for one in dataclasses.fields(cls)}

    @classmethod
    def variant(cls, config: ConfigDict) -> "type[Section]":
        """The class that declares this very section, where its fields depend on one of its values."""
        del config  # subclasses read it
        return cls

    @classmethod
    def read(cls, config: "ConfigDict | Self", where: str | None = None) -> Self:
        """See `read`."""
        return read(cls, config, where)


def to_config_dict(section: Section | ConfigDict) -> ConfigDict:
    """The section as a config holds it; a ConfigDict is returned as it is.

    A section that is None is left out; another None is a placeholder of the field's type.
    """
    if isinstance(section, ConfigDict):
        return section
    config = ConfigDict()
    for declared in dataclasses.fields(section):
        about, value = declared.metadata["about"], getattr(section, declared.name)
        if about.section and value is None:
            continue
        if value is None:
            value = placeholder(typing.get_args(declared.type)[0])  # of KIND | None
        elif isinstance(value, Section):
            value = to_config_dict(value)
        elif isinstance(value, dict):
            sections = {name: to_config_dict(one) for name, one in value.items() if isinstance(one, Section)}
            value = ConfigDict(value | sections)
        config[declared.name] = value
    return config


def read[S: Section](cls: type[S], config: ConfigDict | S, where: str | None = None) -> S:
    """An instance of `cls` with the values of a section; an instance is returned as it is.

    A field that the section lacks has its default.

    Raises:
      UserError: names a field that `cls` does not declare, one without a default that is missing, or one out
        of its range, by its dotted name, which begins with `where`.
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
    for one in dataclasses.fields(cls):
        if one.name not in values and one.default is one.default_factory is MISSING:
            raise UserError(f"{_join(where, one.name)} is missing: {abouts[one.name].help}")
    return cls(**values)


def _value(about: About, value: object, full: str) -> object:
    """What a config holds, as a Section's attribute."""
    if isinstance(value, list | tuple):  # JSON has lists only
        return tuple(_value(about, member, full) for member in value)
    if not isinstance(value, ConfigDict):
        return value
    if not about.section or about.subset:
        return value.to_dict()
    if about.named:
        return {key: read(about.section, member, _join(full, key)) for key, member in value.items()}
    return read(about.section, value, full)


def values(section: Section | ConfigDict) -> dict[str, Any]:
    """The fields of a section by name, in either of its forms."""
    return dict(section.items()) if isinstance(section, ConfigDict) else vars(section)


def leaves(cls: type[Section], config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, About, object]]:
    """(dotted name, declaration, value) of the fields of a config that `cls` declares, in the config's order.

    A config may hold more, such as sections of a user's own: those are left out.
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
    """Raises UserError where a field, called `name` in the message, may not have this value."""
    if about.range and value is not None and not about.range.allows(value):
        raise UserError(f"{name}={shown(repr(value), 200)}: use {about.range}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
