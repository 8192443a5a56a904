"""Being told to stop, by Ctrl-C or SIGTERM: the first time in good order, the second time at once."""

import atexit
import contextlib
import os
import re
import shlex
import signal
import sys
import threading
import time
from typing import NoReturn

from r2rec_jax.runtime import workdir

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A terminal and a scheduler tell a whole group, and whoever stands between (make, a shell) passes it on: what
# comes this soon after the first signal is the first signal.
SAME_S = 1.0
AGAIN_S = 0.02  # after a stop was raised where nobody can catch it
_asked = threading.Event()


def listen() -> None:
    """From here on the first signal raises KeyboardInterrupt, unless a loop takes it to finish its step.

    The second one ends the process with code 130, also from within compiled code, where no Python handler
    would run. Nothing is lost by that: all that is on disk was written for a process that may be killed.
    """
    # Ctrl-C is set too: a shell script's background child inherits it as ignored.
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_count, args=(reader,), daemon=True).start()


def was_asked() -> bool:
    """Whether a signal has come. What is raised then is the stop, whatever it looks like: a
    KeyboardInterrupt within JAX's tracing comes out as an error of JAX's."""
    return _asked.wait(0.05)  # for the thread that counts


def again() -> None:
    """Raises KeyboardInterrupt once more, soon: the last one came within a callback of the garbage collector
    or a destructor, where Python reports it and goes on."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)


def wait_for_device() -> None:
    """Returns when this process has nothing in work on its devices any more, if it uses any.

    With several processes nobody waits: the others may not take part in what is in work.
    """
    if (jax := sys.modules.get("jax")) is None:
        return
    from jax._src import xla_bridge

    if not xla_bridge.backends_are_initialized() or jax.process_count() > 1:
        return
    for array in jax.live_arrays():
        with contextlib.suppress(Exception):  # of a failed program, or of an array given away meanwhile
            array.block_until_ready()


def leave(code: int) -> NoReturn:
    """Ends the process as the interpreter does, but for its own end: a thread of XLA that comes to Python
    then ends the process with "terminate called without an active exception"."""
    threading._shutdown()  # waits for what writes a checkpoint
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def ignore() -> None:
    """From here on a signal changes nothing: a process that has stopped in good order only has to end.

    Python gives up its handlers on its way out, and a signal passed on late would kill it there.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def resuming_command() -> str:
    """This process's command line for a shell, to go on with: without --overwrite once that is obeyed."""
    arguments = sys.orig_argv
    if workdir.has_claimed():
        arguments = [one for one in arguments if not re.fullmatch(r"--?overwrite(=.*)?", one)]
    return shlex.join(arguments)


def _count(reader: int) -> None:
    first = None
    while numbers := os.read(reader, 64):  # a byte a signal, whoever handles it
        if not set(SIGNALS).intersection(numbers):
            continue
        _asked.set()
        now = time.monotonic()
        first = now if first is None else first
        if now - first > SAME_S:
            os.write(2, b"\nstopped at once; the newest whole checkpoint is good\n")  # below a progress bar
            os._exit(130)
