"""A folder on an object store and its copy on this machine, which is what the program reads and writes.

What is there at the start is fetched. While a run writes its copy, a thread puts what has changed on the
store, whole objects under the same names. A folder that is whole or worthless, a checkpoint or prepared
data, has a file that says that it is whole: that one is put last, after all logs, and deleted first. So the
store can be read at any moment, and a run goes on from it on another machine as from a killed process's
workdir.
"""

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import logging

from r2rec_jax.runtime.copies import url_of
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.lease import Lease
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.store import ABSENT, Store, StoreError, hidden

MARKERS = ("commit_success.txt", "manifest.json")  # orbax's of a checkpoint, data/prepared.py's
RECORD = "config.json"  # of a workdir (runtime/workdir.py): written anew where a run begins anew
STEP = re.compile(r"((?:.*/)?checkpoints/(\d+)/).*")
LOOKED_S = 1.0  # between two looks for a new checkpoint
PUBLISHED_S = 20.0  # between two publications of what else has changed
PATIENCE_S = 60.0  # a run that ends tries so long to publish
TRANSFERS = 4  # at once; each has its object in memory


class Mirror:
    """The copy `folder` of `url`."""

    def __init__(self, url: str, folder: Path):
        self._store, self._folder = Store(url), folder
        self._record = folder.parent / f".{folder.name}.json"
        # What the store holds: name -> generation, and the local file's size and mtime_ns that it equals.
        self._known: dict[str, list] = {}

    def pull(self, below: str = "") -> None:
        """Makes the copy what the store holds, of names that begin with `below`.

        Fetches what has changed since the last time alone.
        """
        found = {name for name in self._store.names() if name.startswith(below)}
        torn = {
            name for name in found if (step := STEP.fullmatch(name)) and step[1] + MARKERS[0] not in found
        }
        whole, before = found - torn, self._read_record()
        self._known = {name: ["", -1, -1] for name in torn}  # to be deleted, since no file is there
        for name in _files(self._folder).keys() - whole:
            (self._folder / name).unlink(missing_ok=True)
        if self._each(lambda name: self._fetch(name, before.get(name)), sorted(whole)):
            self.pull(below)  # a run at work has deleted what was listed: there is something newer
            return
        _drop_empty(self._folder)
        self._write_record()

    def publish(self, lease: Lease) -> None:
        """Makes the store what the copy is.

        Raises StoreError, and UserError where the lease is lost; what is on the store is whole all the same.
        """
        # First: what a log lacks that is looked at before, its checkpoint would be without.
        ready = {name for name in _files(self._folder) if _is_marker(name)}
        here = _files(self._folder)
        changed = [name for name, facts in here.items() if self._known.get(name, [])[1:] != facts]
        gone = self._known.keys() - here.keys()
        lease.assure()
        if gone:
            # What belongs to another run, or to steps that will be done again, would not fit the new logs.
            anew = RECORD in changed and RECORD in self._known
            newest = max(map(_step, here), default=-1)
            for name in sorted(gone, key=_markers_first):
                if anew or _step(name) > newest:
                    self._remove(name)
        for marker in filter(_is_marker, list(self._known)):
            folder = marker.removesuffix(marker.rpartition("/")[2])
            if marker in here and any(one.startswith(folder) for one in {*changed, *gone} - {marker}):
                self._remove(marker)  # the folder is being replaced
                changed = [*(one for one in changed if one != marker), marker]
        vanished = self._each(self._put, [name for name in changed if not _is_marker(name)])
        lease.assure()
        markers = [name for name in changed if name in ready]
        for marker in sorted(markers, key=lambda name: -name.count("/")):
            if not any(name.startswith(marker.rpartition("/")[0]) for name in vanished):
                self._put(marker)
        for name in sorted(gone & self._known.keys(), key=_markers_first):
            self._remove(name)
        if changed or gone:
            self._write_record()

    def whole_folders(self) -> set[str]:
        """The markers of the copy."""
        return {name for name in _files(self._folder) if _is_marker(name)}

    def _fetch(self, name: str, before: list | None) -> str | None:
        """Returns `name` if the object has gone meanwhile."""
        path = self._folder / name
        unchanged = before is not None and _facts(path) == before[1:]
        found = self._store.get(name, unless=bytes.fromhex(before[0]) if unchanged else b"")
        if found.generation == ABSENT:
            return name
        if found.data is not None:
            write_atomic(path, found.data)
        self._known[name] = [found.generation.hex(), *_facts(path)]
        return None

    def _put(self, name: str) -> str | None:
        """Returns `name` if the file has gone meanwhile."""
        facts = _facts(self._folder / name)
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return name
        self._known[name] = [self._store.put(name, data).hex(), *(facts or (0, 0))]
        return None

    def _remove(self, name: str) -> None:
        self._store.delete(name)
        self._known.pop(name, None)

    def _each(self, act: Callable, names: list[str]) -> list:
        """What `act` returns of each name that is not None."""
        with ThreadPoolExecutor(TRANSFERS) as pool:
            return [value for value in pool.map(act, names) if value is not None]

    def _read_record(self) -> dict[str, list]:
        """What was known when this copy was last looked at; nothing if that cannot be read."""
        try:
            record = json.loads(self._record.read_bytes())
            return record["names"] if record["url"] == self._store.url else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _write_record(self) -> None:
        write_atomic(self._record, json.dumps({"url": self._store.url, "names": self._known}) + "\n")


def fetch(path: str | Path, below: str = "") -> None:
    """Makes the copy at `path` what the store holds, if it is the copy of something on one; as `Mirror.pull`.

    Raises StoreError; nothing where the store has no such folder or file.
    """
    if (url := url_of(path)) is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of one machine share the copy: the first fetches, the others wait and find it.
    with open(path.with_name(f".{path.name}.lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Mirror(url, path).pull(below)
        if not path.is_dir():  # a single file, or nothing
            parent, _, name = url.rpartition("/")
            found = Store(parent).get(name)
            path.unlink(missing_ok=True) if found.data is None else write_atomic(path, found.data)


class Published:
    """A workdir's Mirror with its lease, kept up to date by a thread until the block ends."""

    def __init__(self, url: str, folder: Path, lost: Callable[[str], None]):
        """Fetches the workdir. `lost`, and what is raised: as `Lease`."""
        self._folder = folder
        self._mirror = Mirror(url, folder)
        self._lease = Lease(Store(url), lost)
        try:
            self._mirror.pull()
        except BaseException:
            self._lease.close()
            raise
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publishes what is left and gives the lease back. Raises UserError where the store takes no more."""
        self._ended.set()
        self._thread.join()
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._mirror.publish(self._lease)
                self._lease.close()
                return
            except StoreError as error:
                if time.monotonic() > end:
                    raise UserError(
                        f"{error}. The last results are not there yet, but in {os.fspath(self._folder)}"
                    ) from error
                logging.warning("%s", error)
                time.sleep(LOOKED_S)

    def _keep(self) -> None:
        published, whole = time.monotonic(), self._mirror.whole_folders()
        while not self._ended.wait(LOOKED_S):
            now = self._mirror.whole_folders()
            if now == whole and time.monotonic() - published < PUBLISHED_S:
                continue
            try:
                self._mirror.publish(self._lease)
                published, whole = time.monotonic(), now
            except (UserError, OSError) as error:
                logging.log_every_n_seconds(logging.WARNING, "not published yet: %s", 60, error)


def _is_marker(name: str) -> bool:
    return name.rpartition("/")[2] in MARKERS


def _markers_first(name: str) -> tuple[bool, int, str]:
    """An order in which the outermost comes first."""
    return not _is_marker(name), name.count("/"), name


def _step(name: str) -> int:
    """Of the checkpoint that a file is in, -1 of no checkpoint's."""
    match = STEP.fullmatch(name)
    return int(match[2]) if match else -1


def _facts(path: Path) -> list[int] | None:
    """Size and mtime_ns."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _files(folder: Path) -> dict[str, list[int]]:
    """Relative name -> facts of every file that is no lock and not half written."""
    found = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not hidden(name) and ".orbax-checkpoint-tmp" not in name]
        for file in files:
            path = Path(parent) / file
            if not hidden(file) and (facts := _facts(path)):
                found[path.relative_to(folder).as_posix()] = facts
    return found


def _drop_empty(folder: Path) -> None:
    for parent, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(parent):
            os.rmdir(parent)
