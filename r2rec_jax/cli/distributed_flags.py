"""Flags for runs with several processes, on one machine or many; see docs/machines.md."""

import atexit
import contextlib
import importlib
import sys
from collections.abc import Iterator

from absl import flags, logging

from r2rec_jax.runtime.errors import UserError

FLAGS = flags.FLAGS
PLACE = ("coordinator_address", "num_processes", "process_id")
NAMES = ("distributed", *PLACE)

flags.DEFINE_bool(
    "distributed", False, "this process is one of several in one run, all started with the same command"
)
flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0; needed without a scheduler")
flags.DEFINE_integer("num_processes", None, "number of processes; needed without a scheduler")
flags.DEFINE_integer("process_id", None, "index of this process, from 0; needed without a scheduler")


@contextlib.contextmanager
def together(supported: bool) -> Iterator[None]:
    """Joins this process to the run, if the flags give several processes, and leaves it after the block.

    After an error in the block is reported, this process exits, which ends the run.

    Raises:
      UserError: contradictory flags, or a command that supports only one process.
    """
    given = [name for name in PLACE if FLAGS[name].present]
    if given and not FLAGS.distributed:
        raise UserError(f"--{given[0]} is for a run of several processes: add --distributed")
    if not FLAGS.distributed:
        yield
        return
    if not supported:
        raise UserError("this command runs in one process: leave --distributed out; launch.train takes it")
    if given and len(given) < len(PLACE):
        raise UserError(f"--{given[0]} is not enough: give {', '.join(f'--{name}' for name in PLACE)}")
    # A late import, because it imports JAX, which takes a second and which not all commands need.
    distributed = importlib.import_module("r2rec_jax.runtime.distributed")
    distributed.join(*(FLAGS[name].value for name in PLACE))
    logging.info("%s has joined the run", distributed.name())
    if not distributed.is_first():
        logging.set_verbosity(logging.WARNING)
    try:
        yield
    except UserError:
        atexit.register(distributed.leave, 2)
        raise
    except Exception:
        atexit.register(_leave, distributed)
        raise


def prints_messages() -> bool:
    """Whether this process prints messages for the whole run."""
    return not FLAGS.distributed or importlib.import_module("r2rec_jax.runtime.distributed").is_first()


def _leave(distributed) -> None:
    print(
        f"error: {distributed.name()} exits, which ends the run. If it lost another process, the cause is in "
        "that process's output. Run the same command in all processes to resume from the last checkpoint",
        file=sys.stderr,
    )
    distributed.leave(1)
