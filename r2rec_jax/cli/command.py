"""The wrapper of all commands: parses flags, reports errors in one line, sets the exit code.

    def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None: ...

    if __name__ == "__main__":
        command.run(main)

A command with its own flags and no config uses `run_plain` instead.

Exit codes:

- 0: done, or stopped by a signal (Ctrl-C, SIGTERM) with all progress saved. stderr then has the command that
  resumes. Training finishes its step and writes a checkpoint, and reproduce stops with its stage. annotate
  has saved each reply, eval and baselines each user's line or system, prepare each parsed file.
- 2: wrong input or a disk error. One line `error: ...` on stderr states the error and what to do.
- 130: stopped at once by a second signal, or a command that cannot resume (`resumes` is false).

Any other exception is a bug and prints a full traceback.
"""

import contextlib
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

from configs import combinations, declared
from r2rec_jax.cli import HELP, distributed_flags, help_text, overrides, signals
from r2rec_jax.cli.help_text import KEY_FLAGS
from r2rec_jax.runtime.errors import UserError, disk_fault, shown

FLAGS = flags.FLAGS
ROOT = Path(__file__).resolve().parents[2]
# Config fields that are paths. Other fields may be URLs, such as a server's address.
PATHS = re.compile(r"(.*\.)?(folder|raw|init|adapter|item_table|replies|trained\.\w+)")
OWN_CODE = (f"{ROOT}/launch/", f"{ROOT}/r2rec_jax/", f"{ROOT}/configs/")

config_flags.DEFINE_config_file(
    "config", None, "config file, with a preset after a colon: configs/grpo.py:quickstart"
)
flags.DEFINE_string("workdir", None, "folder this run writes to; an earlier run in it is resumed")
flags.DEFINE_bool("overwrite", False, "clear what is there first: another run's workdir, an older result")


def run(
    main: Callable[[ConfigDict, Path | None, bool], None],
    needs_workdir: bool = True,
    resumes: bool = True,
    several_processes: bool = False,
    reads: tuple[str, ...] = (),
) -> None:
    """Parses the command line, calls `main(config, workdir, overwrite)` and exits.

    needs_workdir: if False, workdir may be None. resumes: the command continues after a stop.
    several_processes: the command accepts --distributed. reads: fields that a config of this command must
    have.
    """

    def start(_: list[str]) -> None:
        with distributed_flags.together(several_processes):
            main(FLAGS.config, Path(FLAGS.workdir) if FLAGS.workdir else None, FLAGS.overwrite)

    key_flags = (*KEY_FLAGS, *distributed_flags.NAMES) if several_processes else KEY_FLAGS
    _run(start, functools.partial(parse, needs_workdir=needs_workdir, reads=reads), key_flags, resumes)


def run_plain(main: Callable[[list[str]], None], takes: tuple[str, ...] = ("overwrite",)) -> None:
    """Like `run`, without --config: calls `main(arguments)` with the positional arguments.

    takes: the shared flags that the command accepts.
    """
    parser = functools.partial(parse_plain, takes=takes)
    _run(lambda argv: main(argv[1:]), parser, takes, resumes=False)


def _run(
    main: Callable[[list[str]], None], parser: Callable, key_flags: tuple[str, ...], resumes: bool
) -> None:
    def start(argv: list[str]) -> None:
        logging.get_absl_handler().addFilter(_is_for_the_user)
        sys.unraisablehook = _report
        signals.listen()
        try:
            main(argv)
            signals.ignore()  # the work is done
        finally:
            signals.wait_for_device()

    if not set(HELP).isdisjoint(
        sys.argv[1:]
    ):  # for commands in other folders; launch/__init__.py handles ours
        sys.exit(help_of(Path(sys.argv[0])))
    for name in key_flags:  # `parse_plain` reads the key flags
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])
    try:
        app.run(start, flags_parser=parser)
    except UserError as error:
        print("error:", shown(error), file=sys.stderr)
        if disk_fault(error.__cause__):
            _end(2)
        sys.exit(2)
    except KeyboardInterrupt:
        _stopped(resumes)
    except BrokenPipeError:
        sys.exit(_closed_pipe())
    except Exception as error:
        if not (fault := disk_fault(error)):
            if signals.was_received():
                _stopped(resumes)
            raise
        again = f"; then resume with: {signals.resuming_command()}" if resumes else ""
        print("error:", shown(f"{fault}: make room there, or make it writable{again}"), file=sys.stderr)
        _end(2)


def _stopped(resumes: bool) -> NoReturn:
    signals.ignore()
    if not resumes:
        print("interrupted", file=sys.stderr)
        signals.leave(130)
    if distributed_flags.prints_messages():
        print(f"stopped; resume with: {signals.resuming_command()}", file=sys.stderr)
    signals.leave(0)


def _end(code: int) -> NoReturn:
    """Exits without joining threads, some of which wait for a write that failed."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def _is_for_the_user(record: python_logging.LogRecord) -> bool:
    """Whether a log record is shown; makes it one line.

    Records of this program are shown. Other libraries (orbax also logs through absl) are shown from level
    warning, without orbax's tracebacks of errors that it also raises.
    """
    record.msg, record.args = shown(record.getMessage()), None
    if record.pathname.startswith(OWN_CODE):
        return True
    return record.levelno >= python_logging.WARNING and not (record.exc_info and "/orbax/" in record.pathname)


def _report(unraisable) -> None:
    """Handles exceptions that cannot be caught: repeats a KeyboardInterrupt, and prints the others.

    tensorstore's "Event loop is closed" after a failed write is dropped.
    """
    if unraisable.exc_type is KeyboardInterrupt:
        signals.again()
    elif str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def help_of(path: Path) -> int:
    """Prints the help of the command in the file `path`; returns the exit code."""
    try:
        help_text.show(path, sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print("error:", shown(error), file=sys.stderr)
        return 2
    except BrokenPipeError:
        return _closed_pipe()
    return 0


def _closed_pipe() -> int:
    """The exit code if the reader of stdout, e.g. `head`, has closed the pipe; discards buffered output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def parse(argv: list[str], needs_workdir: bool = True, reads: tuple[str, ...] = ()) -> list[str]:
    """Fills FLAGS from `argv`, program name first.

    Raises UserError for invalid flags, and for a config that lacks a field in `reads`.
    """
    config_argument = overrides.config_argument(argv)
    if config_argument:  # a file that cannot be loaded is one line, before absl loads it
        overrides.read_config(config_argument)
    # In place, because `argv` is sys.argv, where ml_collections reads its overrides.
    given, argv[:] = list(argv), overrides.quoted(argv, config_argument)
    try:
        extra = FLAGS(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        raise overrides.unknown("flag", f"--{error.flagname}", [f"--{name}" for name in FLAGS]) from error
    except overrides.UNREADABLE as error:
        raise overrides.explain(given, config_argument, error) from error
    if not config_argument:
        raise UserError("--config is missing: pass a config file, e.g. --config=configs/grpo.py")
    if extra:
        raise UserError(f"unexpected argument {extra[0]!r}: flags are written --name=value")
    if needs_workdir and not FLAGS.workdir:
        raise UserError("--workdir is missing: pass the folder to write to, e.g. --workdir=runs/a")
    fields = overrides.flatten(FLAGS.config)
    paths = [f"--config.{name}={value}" for name, value in fields.items() if PATHS.fullmatch(name)]
    _refuse_urls(f"--workdir={FLAGS.workdir}", *paths)
    if absent := next((field for field in reads if field not in FLAGS.config), None):
        raise UserError(
            f"--config={config_argument} is for another command: it has no {absent}; the first lines of each "
            "file in configs/ name its commands"
        )
    overrides.check_shared(given, FLAGS.config)
    declared.check_ranges(FLAGS.config)
    combinations.check(FLAGS.config)
    return argv[:1]


def parse_plain(argv: list[str], takes: tuple[str, ...] = ("overwrite",)) -> list[str]:
    """`parse` for commands of `run_plain`; returns the program name and the positional arguments."""
    try:
        arguments = FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        own = [f"--{flag.name}" for flag in FLAGS.get_key_flags_for_module(argv[0])]
        raise overrides.unknown("flag", f"--{error.flagname}", own) from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    for name in (*KEY_FLAGS, *distributed_flags.NAMES):
        if FLAGS[name].present and name not in takes:
            raise UserError(f"this command has no flag --{name}; --help lists its flags")
    own = FLAGS.get_key_flags_for_module(argv[0])
    _refuse_urls(*arguments[1:], *(f"--{flag.name}={flag.value}" for flag in own))
    return arguments


def _refuse_urls(*arguments: str) -> None:
    """Raises UserError for the first of `arguments` that is a URL in place of a path.

    As a path, "s3://bucket" would create the local folder s3:/bucket.
    """
    for argument in arguments:
        if "://" in argument:
            raise UserError(
                f"{shown(argument, 200)} is a URL, not a folder: mount or sync the bucket (docs/machines.md) "
                "and pass the folder"
            )
