"""The files that an evaluation leaves: WORKDIR/users.jsonl, which grows as users end, and metrics.json.

A line of users.jsonl is what one system did for one user in one run: at least "system", "run" (from 0),
"user", its number in the prepared data, "user_id", its id in the raw files, "truth_rank" (0: a miss) and
"candidates", the first digits of the candidates' hash.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from r2rec_jax.data.prepared import Dataset, candidates_hash
from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.paths import append_line, write_atomic
from r2rec_jax.runtime.untrusted import json_line, parse_json

USERS, METRICS = "users.jsonl", "metrics.json"
DIGITS = 12  # of a hash in a line


class UserLines:
    """users.jsonl of a workdir, read and added to."""

    def __init__(self, workdir: str | Path, dataset: Dataset):
        """Reads what is there; a last line that a killed writer left unfinished is dropped.

        Raises UserError naming a line that is none, is there twice, or is of other candidates than those
        of `dataset`.
        """
        self.path = Path(workdir) / USERS
        self._user_ids = dataset.catalog.user_ids
        self._candidates = candidates_hash(dataset.split)[:DIGITS]
        self._of: dict[tuple[str, int, int], dict] = {}
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            self._add(_parse(line, f"{self.path}:{number}"), f"{self.path}:{number}")
        if whole != data:
            write_atomic(self.path, whole)

    def append(self, system: str, run: int, user: int, truth_rank: int, **more) -> None:
        """Adds a line, on disk when this returns."""
        line = {"system": system, "run": int(run), "user": int(user), "user_id": self._user_ids[user]}
        line |= {"truth_rank": int(truth_rank), **more}
        line["candidates"] = self._candidates
        self._add(line, f"{self.path}: a new line")
        append_line(self.path, json_line(line))

    def __contains__(self, key: tuple[str, int, int]) -> bool:
        """Whether (system, run, user) has its line."""
        return key in self._of

    def of(self, system: str, run: int, users: Sequence[int]) -> list[dict]:
        """The users' lines, in their order. Raises UserError for one that has none."""
        absent = next((user for user in users if (system, run, int(user)) not in self._of), None)
        if absent is not None:
            raise UserError(
                f"{self.path} has no line of {system!r}, run {run}, user {absent}: run the same command again"
            )
        return [self._of[system, run, int(user)] for user in users]

    def ranks(self, system: str, users: Sequence[int]) -> np.ndarray:
        """int32 [R, n] of all R runs that the system has."""
        runs = 1 + max((run for name, run, _ in self._of if name == system), default=0)
        return np.array(
            [[line["truth_rank"] for line in self.of(system, run, users)] for run in range(runs)], np.int32
        )

    def sort(self, systems: Sequence[str], users: Sequence[int]) -> None:
        """Rewrites the file by system, run and user in these orders, whatever ended first; others last."""
        system_at = {name: k for k, name in enumerate(systems)}
        user_at = {int(user): k for k, user in enumerate(users)}
        last = len(self._of)
        keys = sorted(
            self._of, key=lambda key: (system_at.get(key[0], last), key[1], user_at.get(key[2], last))
        )
        write_atomic(self.path, b"".join(json_line(self._of[key]) for key in keys))

    def _add(self, line: dict, where: str) -> None:
        if line["candidates"] != self._candidates:
            raise UserError(
                f"{where} ranks candidates {shown(line['candidates'], 40)}, the data folder's are "
                f"{self._candidates}: choose another --workdir or add --overwrite to clear it"
            )
        key = line["system"], line["run"], line["user"]
        if key in self._of:
            raise UserError(
                f"{where} says again what {shown(key, 200)} has said: remove one of the two lines"
            )
        self._of[key] = line


def write_metrics(
    workdir: str | Path, dataset: Dataset, users: int, seed: int, systems: dict, paired: dict
) -> None:
    """Writes metrics.json. `systems`: name -> what `measure` returns, and more; `paired`: "A - B" -> what
    `measure.paired` returns; `users`: how many were ranked."""
    report = {
        "users": users,
        "candidates_sha256": candidates_hash(dataset.split),
        "seed": seed,
        "systems": systems,
        "paired": paired,
    }
    write_atomic(Path(workdir) / METRICS, json.dumps(report, indent=2, allow_nan=False) + "\n")


def read_metrics(workdir: str | Path) -> dict:
    """metrics.json of a workdir. Raises UserError when it is not there or damaged."""
    path = Path(workdir) / METRICS
    try:
        found = parse_json(path.read_bytes())
        if not isinstance(found, dict) or type(found.get("seed")) is not int:
            raise ValueError("it has no seed")
        systems = found.get("systems")
        if not isinstance(systems, dict) or not all(isinstance(one, dict) for one in systems.values()):
            raise ValueError("it has no systems")
        return found
    except FileNotFoundError:
        raise UserError(f"no evaluation at {path}: run launch.eval or launch.baselines first") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): remove it and run the same command again") from error


def _parse(line: bytes, where: str) -> dict:
    fields = {"system": str, "run": int, "user": int, "truth_rank": int, "candidates": str}
    try:
        found = parse_json(line)
        valid = all(type(found[name]) is kind for name, kind in fields.items())
        valid = valid and all(0 <= found[name] < 1 << 31 for name in ("run", "user", "truth_rank"))
        json_line(found)  # it can be written again
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise UserError(f"{where} is no result of a user: remove the line to have it made again")
    return found
