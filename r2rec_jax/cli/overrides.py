"""Parses --config=FILE[:PRESET] and --config.FIELD=VALUE, and explains wrong fields and values."""

import difflib
import keyword
import re
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from r2rec_jax.runtime.errors import UserError, shown

# Exceptions that absl and ml_collections raise for unusable flags, including values that nest too deeply.
UNREADABLE = (
    *(flags.Error, AttributeError, KeyError, ValueError, TypeError),
    *(IndexError, OverflowError, RecursionError, MemoryError),
)
OVERRIDE = re.compile(r"(--?(?:no)?config\.)([^=]+)(=.*)?", re.DOTALL)


def config_argument(argv: list[str]) -> str:
    """The value of --config; checks that its file exists, which ml_collections does only later."""
    values = [
        following if match[1] is None else match[1]
        for argument, following in zip(argv, [*argv[1:], ""], strict=True)
        if (match := re.fullmatch(r"--?config(?:=(.*))?", argument))
    ]
    if not values or not values[-1]:
        if any(re.match(r"--?(no)?config\.", argument) for argument in argv):
            raise UserError("--config is missing: pass a config file before any --config.field")
        return ""
    path = Path(values[-1].split(":", 1)[0])
    try:
        if path.is_file():
            return values[-1]
        siblings = [str(path.parent / entry.name) for entry in path.parent.glob("*.py")]
    except OSError as error:
        raise UserError(f"--config={shown(path, 200)}: {error.strerror}") from error
    raise unknown("config file", str(path), siblings)


def read_config(argument: str) -> ConfigDict:
    """The config for a value of --config. Raises UserError for an invalid file or preset."""
    try:
        return config_flags.ConfigFileFlagParser("config").parse(argument)
    except Exception as error:  # whatever a user's own file may raise
        raise _explain_config_file(argument, error) from error


def quoted(argv: list[str], argument: str) -> list[str]:
    """`argv` with field names quoted for ml_collections.

    ml_collections parses `systems.sft+grpo.mode` as a sum and `systems['sft+grpo'].mode` as a field.
    """
    if all(re.fullmatch(r"[\w.]+", match[2]) for match in filter(None, map(OVERRIDE.fullmatch, argv))):
        return argv
    config = read_config(argument)
    return [_quoted(config, argument) for argument in argv]


def _quoted(config: ConfigDict, argument: str) -> str:
    match = OVERRIDE.fullmatch(argument)
    path = match and next(_paths(config, match[2]), None)
    if not path:
        return argument
    name = "".join(f".{key}" if _is_plain(key) else f"[{key!r}]" for key in path)
    name = name.removeprefix(".").replace(" ", r"\x20")  # absl flag names cannot contain spaces
    return f"{match[1]}{name}{match[3] or ''}"


def _is_plain(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key)


def _paths(config: ConfigDict, name: str) -> Iterator[list[str]]:
    """All ways to split a dotted name into a path of keys, which may contain dots themselves."""
    for key, value in config.items():
        if name == key:
            yield [key]
        elif name.startswith(f"{key}.") and isinstance(value, ConfigDict):
            for rest in _paths(value, name[len(key) + 1 :]):
                yield [key, *rest]


# Sections shared by the stages of launch.reproduce (runs/stages.py); a value inside one stage has no effect.
SHARED = re.compile(
    r"(?:sft|grpo|eval|baselines|tallrec|llara)\.((?:seed|data|prompt|model|lora|mesh|annotate)\b.*)"
    r"|pretrain\.((?:data|prompt|mesh)\b.*)"
)


def check_shared(argv: list[str], config: ConfigDict) -> None:
    """Raises UserError if a flag sets a shared field inside one stage of launch.reproduce."""
    if "tables" not in config:
        return
    for field, value in _overrides(argv):
        if match := SHARED.fullmatch(field):
            raise UserError(
                f"--config.{field}: all stages share this one: set --config.{match[1] or match[2]}="
                f"{shown(value, 60)}"
            )


def explain(argv: list[str], argument: str, error: Exception) -> UserError:
    """A one-line UserError for an error of absl or ml_collections while parsing `argv`."""
    too_deep = isinstance(error, RecursionError)
    message = "a flag is too long, or its value nests too deeply" if too_deep else shown(error)
    plain = UserError(message or f"the flags cannot be read: {type(error).__name__}")
    if not argument:  # without --config there are no fields to compare
        return plain
    try:
        config = read_config(argument)
    except UserError as config_error:
        return config_error
    fields = flatten(config)
    for field, value in _overrides(argv):
        if field not in fields:
            return _no_field(config, fields, field, value)
        # ml_collections names the field in quoted form.
        spelt = _quoted(config, f"--config.{field}=").removeprefix("--").removesuffix("=")
        if f"{spelt}={value}:" in str(error):
            kind = type(fields[field]).__name__
            return UserError(f"--config.{field}={shown(value, 200)}: the value must be of type {kind}")
    return plain


def _overrides(argv: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (dotted name, value) of each override, with quotes removed from names."""
    for match in filter(None, map(OVERRIDE.fullmatch, argv)):
        yield re.sub(r"""\[(['"])(.*?)\1\]""", r".\2", match[2]), (match[3] or "=")[1:]


def _no_field(config: ConfigDict, fields: dict[str, object], field: str, value: str) -> UserError:
    if inside := [name for name in fields if name.startswith(f"{field}.")]:
        return UserError(f"--config.{field} is a section: set its fields, e.g. --config.{inside[0]}")
    section, _, leaf = field.rpartition(".")
    # These sections have only the fields that differ from the prompt section.
    if re.fullmatch(r"(systems|compared|variants)\..+\.prompt|policy\.prompt|studies\..+", section) and (
        next(_paths(config, section), None) and leaf in config.prompt
    ):
        return UserError(
            f"--config.{field}: {section} has no {leaf} yet: set all differing fields at once, "
            f"--config.{section}=\"{{'{leaf}': {shown(value, 60)}}}\""
        )
    # The most common mistake is a field name without its section.
    alike = [known for known in fields if known.rpartition(".")[2] == leaf]
    return unknown("config field", field, alike or list(fields))


def _explain_config_file(argument: str, error: Exception) -> UserError:
    """A UserError for a config file that raises, most often for an unknown preset."""
    path, _, preset = argument.partition(":")
    # ml_collections puts a traceback into a new message and chains the original error.
    while error.__context__ is not None:
        error = error.__context__
    if isinstance(error, TypeError) and "get_config()" in str(error):
        needs = "takes no preset" if preset else f"needs a preset: --config={path}:PRESET"
        return UserError(f"config file {path} {needs}")
    if isinstance(error, KeyError):
        return UserError(f"{argument}: unknown preset {error}")
    if isinstance(error, SyntaxError):
        return UserError(f"{path}:{error.lineno}: {error.msg}; a config is a Python file with get_config()")
    if isinstance(error, AttributeError) and "get_config" in str(error):
        return UserError(f"{path} has no get_config(): name a file of configs/ or one of your own like them")
    if isinstance(error, UserError):
        return UserError(str(error))  # a new one: raised from its own wrapper, it would be its own cause
    if isinstance(error, ValueError | TypeError):
        return UserError(f"{argument}: {error}")
    return UserError(f"{argument}: {type(error).__name__}: {shown(error)}")


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    """{"optimizer.lr": 1e-4, ...}: every field of a nested config by its dotted name."""
    fields = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            fields |= flatten(value, f"{prefix}{name}.")
        else:
            fields[f"{prefix}{name}"] = value
    return fields


def unknown(kind: str, name: str, known: list[str]) -> UserError:
    """A UserError "unknown KIND NAME" that suggests the nearest of `known`."""
    nearest = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.0)
    hint = f": did you mean {nearest[0]}?" if nearest else ""
    return UserError(f"unknown {kind} {shown(name, 200)}{hint}")
