"""The flags by which processes, on one machine or many, make one run; docs/machines.md shows them at work."""

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

flags.DEFINE_bool("distributed", False, "this process is one of several that make one run, all started alike")
flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, where no scheduler tells")
flags.DEFINE_integer("num_processes", None, "how many there are, where no scheduler tells")
flags.DEFINE_integer("process_id", None, "which of them this is, from 0, where no scheduler tells")


@contextlib.contextmanager
def together(supported: bool) -> Iterator[None]:
    """What happens inside is done by all processes of the run, if the flags say that there are several.

    An error that leaves it ends this process as soon as it has been told, and with it the run.

    Raises:
      UserError: flags that contradict each other, or a command that runs in one process only.
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
    # Not at the top: it imports JAX, which takes a second, and commands that need none share this file.
    distributed = importlib.import_module("r2rec_jax.runtime.distributed")
    distributed.join(*(FLAGS[name].value for name in PLACE))
    logging.info("%s is here, with the others", distributed.name())
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


def speaks() -> bool:
    """Whether this process is the one that says what holds for all."""
    return not FLAGS.distributed or importlib.import_module("r2rec_jax.runtime.distributed").is_first()


def _leave(distributed) -> None:
    print(
        f"error: {distributed.name()} ends, and with it the run. Where it has lost another process, that one "
        "knows why. The same command, given to all, goes on from the last checkpoint",
        file=sys.stderr,
    )
    distributed.leave(1)
