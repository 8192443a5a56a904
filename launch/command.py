"""The wrapper every command shares: flags in, one-line errors out.

    def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None: ...

    if __name__ == "__main__":
        command.run(main)

A command with flags of its own and no config takes `run_plain` instead.

Exit codes: 0 done, or told to stop (Ctrl-C, SIGTERM) with all that is done saved: the line on stderr is the
command that goes on. Training finishes its step and writes a checkpoint, reproduce stops with its stage; of
the others, annotate has each reply, eval and baselines each user's line or system, prepare each parsed file.
2 the user's input was wrong or the disk refused, one line `error: ...` on stderr says what and what to do.
130 stopped by a second signal at once, or a command that begins anew next time (`resumes` is false).
Any other exception is a bug: full traceback.
"""

import contextlib
import difflib
import functools
import logging as python_logging
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from launch import machines, remote, stopping
from r2rec_jax.runtime.copies import is_url, named
from r2rec_jax.runtime.errors import UserError, disk_fault, shown

FLAGS = flags.FLAGS
ROOT = Path(__file__).resolve().parents[1]
KEY_FLAGS = ("config", "workdir", "overwrite")
OWN_CODE = (f"{ROOT}/launch/", f"{ROOT}/r2rec_jax/", f"{ROOT}/configs/")
# What absl and ml_collections let through for flags they cannot use, down to values that nest too deeply.
UNREADABLE = (
    *(flags.Error, AttributeError, KeyError, ValueError, TypeError),
    *(IndexError, OverflowError, RecursionError, MemoryError),
)

config_flags.DEFINE_config_file(
    "config", None, "config file, with a preset after a colon: configs/grpo.py:quickstart"
)
flags.DEFINE_string(
    "workdir", None, "folder this run writes to, also gs:// or s3://; an earlier run in it is resumed"
)
flags.DEFINE_bool("overwrite", False, "clear what is there first: another run's workdir, an older result")


def run(
    main: Callable[[ConfigDict, Path | None, bool], None],
    needs_workdir: bool = True,
    resumes: bool = True,
    several_processes: bool = False,
    stores: bool = False,
) -> None:
    """Parses the command line, calls `main(config, workdir, overwrite)` and exits.

    A command that can do without a workdir gets None where none is given. One that `resumes` goes on where it
    was stopped. `several_processes`: it takes --distributed. `stores`: its workdir and what
    it reads may be on an object store.
    """

    def start(_: list[str]) -> None:
        with (
            machines.together(several_processes),
            remote.at_hand(FLAGS.config, FLAGS.workdir, stores) as (config, workdir),
        ):
            main(config, workdir, FLAGS.overwrite)

    key_flags = (*KEY_FLAGS, *machines.NAMES) if several_processes else KEY_FLAGS
    _run(start, functools.partial(parse, needs_workdir=needs_workdir), key_flags, resumes)


def run_plain(main: Callable[[list[str]], None], takes: tuple[str, ...] = ("overwrite",)) -> None:
    """As `run` without --config, and with those of its other flags that the command `takes`: calls
    `main(arguments)`, those that are no flags."""
    parser = functools.partial(parse_plain, takes=takes)
    _run(lambda argv: main(argv[1:]), parser, takes, resumes=False)


def _run(
    main: Callable[[list[str]], None], parser: Callable, key_flags: tuple[str, ...], resumes: bool
) -> None:
    def start(argv: list[str]) -> None:
        logging.get_absl_handler().addFilter(_is_for_the_user)
        sys.unraisablehook = _report
        stopping.listen()
        try:
            main(argv)
            stopping.ignore()  # all is done
        finally:
            stopping.wait_for_device()

    for name in key_flags:  # so that --help shows them
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])
    try:
        app.run(start, flags_parser=parser)
    except UserError as error:
        print("error:", shown(named(str(error))), file=sys.stderr)
        if disk_fault(error.__cause__):
            _end(2)
        sys.exit(2)
    except KeyboardInterrupt:
        _stopped(resumes)
    except BrokenPipeError:  # `... | head` has read enough; what is still in the buffer has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if not (fault := disk_fault(error)):
            if stopping.was_asked():
                _stopped(resumes)
            raise
        again = f"; then go on with: {stopping.resuming_command()}" if resumes else ""
        print("error:", shown(f"{fault}: make room there, or make it writable{again}"), file=sys.stderr)
        _end(2)


def _stopped(resumes: bool) -> NoReturn:
    stopping.ignore()
    if not resumes:
        print("interrupted", file=sys.stderr)
        stopping.leave(130)
    if machines.speaks():
        print(f"stopped; go on with: {stopping.resuming_command()}", file=sys.stderr)
    stopping.leave(0)


def _end(code: int) -> NoReturn:
    """Ends the process without its threads, some of which wait for what the disk has refused."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def _is_for_the_user(record: python_logging.LogRecord) -> bool:
    """Whether a record is logged, as one line: ours from info; orbax's, which logs through absl as well, from
    warnings up, and without the tracebacks of what it raises besides."""
    record.msg, record.args = shown(named(record.getMessage())), None
    if record.pathname.startswith(OWN_CODE):
        return True
    return record.levelno >= python_logging.WARNING and not (record.exc_info and "/orbax/" in record.pathname)


def _report(unraisable) -> None:
    """What is raised where nobody can catch it: a stop, too. After one refused write, tensorstore finds
    nobody in orbax to tell of the next."""
    if unraisable.exc_type is KeyboardInterrupt:
        stopping.again()
    elif str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def parse(argv: list[str], needs_workdir: bool = True) -> list[str]:
    """Fills FLAGS from `argv` (program name first). Raises UserError for anything it cannot use."""
    config_argument = _config_argument(argv)
    try:
        extra = FLAGS(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        raise _unknown("flag", f"--{error.flagname}", [f"--{name}" for name in FLAGS]) from error
    except UNREADABLE as error:
        raise _explain(argv, config_argument, error) from error
    if not config_argument:
        raise UserError("--config is missing: pass a config file, e.g. --config=configs/grpo.py")
    if extra:
        raise UserError(f"unexpected argument {extra[0]!r}: flags are written --name=value")
    if needs_workdir and not FLAGS.workdir:
        raise UserError("--workdir is missing: pass the folder to write to, e.g. --workdir=runs/a")
    if "://" in (FLAGS.workdir or "") and not is_url(FLAGS.workdir):
        raise UserError(
            f"--workdir={FLAGS.workdir} is no folder: name one, or gs://BUCKET/NAME or s3://BUCKET/NAME"
        )
    return argv[:1]


def parse_plain(argv: list[str], takes: tuple[str, ...] = ("overwrite",)) -> list[str]:
    """`parse` for a command of `run_plain`; returns the program's name and the plain arguments."""
    try:
        arguments = FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        own = [f"--{flag.name}" for flag in FLAGS.get_key_flags_for_module(argv[0])]
        raise _unknown("flag", f"--{error.flagname}", own) from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    for name in (*KEY_FLAGS, *machines.NAMES):
        if FLAGS[name].present and name not in takes:
            raise UserError(f"this command takes no --{name}; --help lists its flags")
    values = [*arguments[1:], *(flag.value for flag in FLAGS.get_key_flags_for_module(argv[0]))]
    if url := next(filter(is_url, values), None):
        raise UserError(f"{shown(url, 200)}: {remote.REFUSAL}")
    return arguments


def _config_argument(argv: list[str]) -> str:
    """The value of --config, its file checked: ml_collections reports a missing one late."""
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
    raise _unknown("config file", str(path), siblings)


def _explain(argv: list[str], config_argument: str, error: Exception) -> UserError:
    """The one line for an error that absl or ml_collections raised while parsing `argv`."""
    try:
        config = config_flags.ConfigFileFlagParser("config").parse(config_argument)
    except (flags.Error, KeyError, ValueError, TypeError) as config_error:
        return _explain_config_file(config_argument, config_error)
    for argument in argv:
        match = re.match(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", argument)
        if match is None:
            continue
        field, value = match.groups()
        fields = _flatten(config)
        if field not in fields:
            # Someone who knows a field by its last name only is the commonest case.
            leaf = field.rpartition(".")[2]
            return _unknown(
                "config field",
                field,
                [known for known in fields if known.rpartition(".")[2] == leaf] or list(fields),
            )
        if f"config.{field}={value}:" in str(error):
            kind = config_flags.GetType(field, config).__name__
            return UserError(f"--config.{field}={shown(value, 200)}: the value must be of type {kind}")
    return UserError(shown(error) or f"the flags cannot be read: {type(error).__name__}")


def _explain_config_file(config_argument: str, error: Exception) -> UserError:
    """A config file that refuses: an unknown preset, most often."""
    path, _, preset = config_argument.partition(":")
    # ml_collections pastes a traceback into a new message and chains the original below it.
    while error.__context__ is not None:
        error = error.__context__
    if isinstance(error, TypeError) and "get_config()" in str(error):
        needs = "takes no preset" if preset else f"needs a preset: --config={path}:PRESET"
        return UserError(f"config file {path} {needs}")
    if isinstance(error, KeyError):
        return UserError(f"{config_argument}: unknown preset {error}")
    return UserError(f"{config_argument}: {error}")


def _flatten(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    """{"optimizer.lr": 1e-4, ...}: every field of a nested config by its dotted name."""
    fields = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            fields |= _flatten(value, f"{prefix}{name}.")
        else:
            fields[f"{prefix}{name}"] = value
    return fields


def _unknown(kind: str, name: str, known: list[str]) -> UserError:
    """`unknown KIND NAME`, with the nearest of `known`."""
    nearest = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.0)
    hint = f": did you mean {nearest[0]}?" if nearest else ""
    return UserError(f"unknown {kind} {shown(name, 200)}{hint}")
