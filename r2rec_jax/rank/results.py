"""The result files of an evaluation: WORKDIR/users.jsonl, appended user by user, and metrics.json.

A line of users.jsonl is the result of one system for one user in one run. It has at least these keys:
"system", "run" (from 0), "user" (number in the prepared data), "user_id" (id in the raw files), "truth_rank"
(0 for a miss) and "candidates" (first digits of the candidates' hash).
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
DIGITS = 12  # digits of the candidates' hash in a line


class UserLines:
    """Reads users.jsonl of a workdir and appends lines to it."""

    def __init__(self, workdir: str | Path, dataset: Dataset):
        """Reads the existing lines. An unfinished last line, left by a killed process, is dropped.

        Raises UserError naming a line that is invalid, occurs twice, or ranks other candidates than those of
        `dataset`.
        """
        self.path = Path(workdir) / USERS
        self._user_ids = dataset.catalog.user_ids
        self._candidates = candidates_hash(dataset.split)[:DIGITS]
        self._lines: dict[tuple[str, int, int], dict] = {}
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            self._add(_parse(line, f"{self.path}:{number}"), f"{self.path}:{number}")
        if whole != data:
            write_atomic(self.path, whole)

    def append(self, system: str, run: int, user: int, truth_rank: int, **more) -> None:
        """Appends a line; it is on disk when this returns."""
        line = {"system": system, "run": int(run), "user": int(user), "user_id": self._user_ids[user]}
        line |= {"truth_rank": int(truth_rank), **more}
        line["candidates"] = self._candidates
        self._add(line, f"{self.path}: a new line")
        append_line(self.path, json_line(line))

    def __contains__(self, key: tuple[str, int, int]) -> bool:
        """Whether there is a line of (system, run, user)."""
        return key in self._lines

    def of(self, system: str, run: int, users: Sequence[int]) -> list[dict]:
        """The lines of `users`, in their order. Raises UserError for a user without one."""
        absent = next((user for user in users if (system, run, int(user)) not in self._lines), None)
        if absent is not None:
            raise UserError(
                f"{self.path} has no line of {system!r}, run {run}, user {absent}: run the same command again"
            )
        return [self._lines[system, run, int(user)] for user in users]

    def ranks(self, system: str, users: Sequence[int]) -> np.ndarray:
        """Ranks of the held-out items, int32 [R, n], of all R runs of the system."""
        runs = 1 + max((run for name, run, _ in self._lines if name == system), default=0)
        return np.array(
            [[line["truth_rank"] for line in self.of(system, run, users)] for run in range(runs)], np.int32
        )

    def sort(self, systems: Sequence[str], users: Sequence[int]) -> None:
        """Rewrites the file, sorted by system, run and user in the given orders; other lines come last."""
        system_at = {name: k for k, name in enumerate(systems)}
        user_at = {int(user): k for k, user in enumerate(users)}
        last = len(self._lines)
        keys = sorted(
            self._lines, key=lambda key: (system_at.get(key[0], last), key[1], user_at.get(key[2], last))
        )
        write_atomic(self.path, b"".join(json_line(self._lines[key]) for key in keys))

    def _add(self, line: dict, where: str) -> None:
        if line["candidates"] != self._candidates:
            raise UserError(
                f"{where} ranks candidates {shown(line['candidates'], 40)}, but the data folder has "
                f"{self._candidates}: choose another --workdir or add --overwrite to clear it"
            )
        key = line["system"], line["run"], line["user"]
        if key in self._lines:
            raise UserError(f"{where} repeats the line of {shown(key, 200)}: remove one of the two lines")
        self._lines[key] = line


def write_metrics(
    workdir: str | Path, dataset: Dataset, users: int, seed: int, systems: dict, paired: dict
) -> None:
    """Writes metrics.json.

    users: number of users ranked. systems: name -> metrics, from `system_metrics.measure` and others. paired:
    "A - B" -> comparison, from `system_metrics.paired`.
    """
    report = {
        "users": users,
        "candidates_sha256": candidates_hash(dataset.split),
        "seed": seed,
        "systems": systems,
        "paired": paired,
    }
    write_atomic(Path(workdir) / METRICS, json.dumps(report, indent=2, allow_nan=False) + "\n")


def read_metrics(workdir: str | Path) -> dict:
    """Reads metrics.json of a workdir. Raises UserError if it is missing or damaged."""
    path = Path(workdir) / METRICS
    try:
        metrics = parse_json(path.read_bytes())
        if not isinstance(metrics, dict) or type(metrics.get("seed")) is not int:
            raise ValueError("it has no seed")
        systems = metrics.get("systems")
        if not isinstance(systems, dict) or not all(isinstance(system, dict) for system in systems.values()):
            raise ValueError("it has no systems")
        return metrics
    except FileNotFoundError:
        raise UserError(f"no evaluation at {path}: run launch.eval or launch.baselines first") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): remove it and run the same command again") from error


def _parse(line: bytes, where: str) -> dict:
    fields = {"system": str, "run": int, "user": int, "truth_rank": int, "candidates": str}
    try:
        result = parse_json(line)
        valid = all(type(result[name]) is kind for name, kind in fields.items())
        valid = valid and all(0 <= result[name] < 1 << 31 for name in ("run", "user", "truth_rank"))
        json_line(result)  # raises if the line cannot be rewritten
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise UserError(f"{where} is not a valid result: remove the line to rank the user again")
    return result
