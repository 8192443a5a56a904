"""Handles Ctrl-C and SIGTERM: the first signal stops in an orderly way, the second at once."""

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
# Terminals and schedulers signal the whole process group, and parents (make, a shell) forward the signal.
# Signals
# within this time after the first one count as the same signal.
SAME_S = 1.0
AGAIN_S = 0.02  # delay before a KeyboardInterrupt that could not be caught is raised again
_received = threading.Event()


def listen() -> None:
    """Installs handlers: the first signal raises KeyboardInterrupt, unless a loop handles it itself.

    The second signal exits with code 130, even inside compiled code, where Python handlers do not run. Files
    stay valid, because all writes are atomic.
    """
    # SIGINT too, because background children of a shell script inherit it as ignored.
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_count, args=(reader,), daemon=True).start()


def was_received() -> bool:
    """Whether a signal has been received; any exception then counts as the stop.

    A KeyboardInterrupt during JAX's tracing surfaces as another error.
    """
    return _received.wait(0.05)  # gives the counting thread time to run


def again() -> None:
    """Raises KeyboardInterrupt again after AGAIN_S.

    The last one was raised in a garbage-collector callback or a destructor, where Python reports and drops
    it.
    """
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)


def wait_for_device() -> None:
    """Waits until the devices of this process have finished their work.

    It does not wait with several processes, because the others may not take part in a collective any more.
    """
    if (jax := sys.modules.get("jax")) is None:
        return
    from jax._src import xla_bridge

    if not xla_bridge.backends_are_initialized() or jax.process_count() > 1:
        return
    for array in jax.live_arrays():
        with contextlib.suppress(Exception):  # the program failed, or the array was donated
            array.block_until_ready()


def leave(code: int) -> NoReturn:
    """Exits like the interpreter, but without finalising it.

    During finalisation, an XLA thread that enters Python would abort the process with "terminate called
    without an active exception".
    """
    threading._shutdown()  # waits for threads that write a checkpoint
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def ignore() -> None:
    """Ignores further signals, for a process that is about to exit.

    Python removes its handlers at exit, and a late signal would kill the process there.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def resuming_command() -> str:
    """The shell command that resumes this process; without --overwrite if that has been applied."""
    arguments = sys.orig_argv
    if workdir.has_claimed():
        arguments = [flag for flag in arguments if not re.fullmatch(r"--?overwrite(=.*)?", flag)]
    return shlex.join(arguments)


def _count(reader: int) -> None:
    first = None
    while numbers := os.read(reader, 64):  # one byte per signal
        if not set(SIGNALS).intersection(numbers):
            continue
        _received.set()
        now = time.monotonic()
        first = now if first is None else first
        if now - first > SAME_S:
            os.write(
                2, b"\nstopped at once; the newest whole checkpoint is good\n"
            )  # the newline ends a progress bar
            os._exit(130)
