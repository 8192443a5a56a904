"""One writer at a time on an object store, which has no locks: a lease that its holder renews."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from absl import logging

from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.store import ABSENT, Store, StoreError

NAME = ".lease"
FREE = b"free\n"
RENEWED_S = 5.0
# Who finds a lease that has not changed for that long takes it. Both clocks are the finder's own.
LAPSED_S = 20.0


class Lease:
    """Held from the start to `close`. A process that dies leaves it to lapse."""

    def __init__(self, store: Store, lost: Callable[[str], None]):
        """Waits for a lapsed lease, at most LAPSED_S.

        Args:
          lost: called in a thread, with a line for the user, when another run has taken the lease: this one
            was out of touch for long.

        Raises:
          UserError: another run holds it.
          StoreError: as the store.
        """
        self._store, self._lost = store, lost
        self._token, self._count = secrets.token_hex(8), 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        found = store.get(NAME)
        if found.data not in (None, FREE):
            found = self._await_end(found)
        self._generation = found.generation or ABSENT
        self._renewed = time.monotonic()
        if not self._write(self._line()):
            raise self._in_use(store.get(NAME).data)
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def assure(self) -> None:
        """Returns while the lease is this process's own: to be called before what must not be done twice.

        Raises UserError where it is not, StoreError where nobody can tell.
        """
        if time.monotonic() - self._renewed > LAPSED_S / 2 and not self._write(self._line()):
            raise self._taken()

    def close(self) -> None:
        """Gives the lease back."""
        self._ended.set()
        self._thread.join()
        self._write(FREE)

    def _line(self) -> bytes:
        self._count += 1
        return f"pid {os.getpid()} on {socket.gethostname()} ({self._token}, {self._count})\n".encode()

    def _write(self, line: bytes) -> bool:
        """Replaces the lease by `line`; False when it is not the one that this process wrote last."""
        with self._lock:
            began = time.monotonic()
            generation = self._store.put(NAME, line, instead_of=self._generation)
            if generation is None:
                # An answer may have been lost, and the request been sent again.
                found = self._store.get(NAME)
                if found.data != line:
                    return False
                generation = found.generation
            self._generation, self._renewed = generation, began
            return True

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED_S):
            try:
                if not self._write(self._line()):
                    self._lost(str(self._taken()))
                    return
            except StoreError as error:
                logging.log_every_n_seconds(logging.WARNING, "%s", 60, error)

    def _await_end(self, found):
        logging.warning(
            "%s is in use by %s, or was: looking for up to %.0f s whether it still is",
            self._store.url,
            _holder(found.data),
            LAPSED_S,
        )
        end = time.monotonic() + LAPSED_S
        while time.monotonic() < end:
            time.sleep(0.5)
            now = self._store.get(NAME)
            if now.data in (None, FREE):
                return now
            if now.data != found.data:
                raise self._in_use(now.data)
        return found

    def _in_use(self, line: bytes | None) -> UserError:
        holder = "" if line in (None, FREE) else f" ({_holder(line)})"
        return UserError(
            f"{self._store.url} is in use by another run{holder}: wait until it ends, or choose another "
            "folder"
        )

    def _taken(self) -> UserError:
        return UserError(
            f"{self._store.url} was out of reach for so long that another run has taken it: this one ends. "
            "What it had written there is good"
        )


def _holder(line: bytes) -> str:
    return shown(line.decode(errors="replace").partition(" (")[0].strip(), 100)
