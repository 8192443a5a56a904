"""Logs of a run as JSON lines, one a write: `{"step": 7, "train/loss": 1.25}`, readable as they grow."""

import math
from collections.abc import Mapping
from pathlib import Path

from r2rec_jax.runtime.distributed import is_first
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import append_line, write_atomic
from r2rec_jax.runtime.untrusted import json_line, parse_json

FILE = "metrics.jsonl"


class StepLog:
    """Appends JSON objects that say what step they belong to; several may share one.

    Of the processes of a run the first alone writes.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, step: int, row: Mapping) -> None:
        if is_first():
            append_line(self._path, json_line({"step": int(step), **row}))

    def truncate_after(self, step: int) -> None:
        """Drops every line beyond `step`, and a half-written last one: call it on resuming."""
        if is_first():
            kept = [line for line, row in _lines(self._path) if row["step"] <= step]
            write_atomic(self._path, b"".join(line + b"\n" for line in kept))


class MetricWriter(StepLog):
    """The numbers of a run, in `folder`/metrics.jsonl."""

    def __init__(self, folder: str | Path):
        super().__init__(Path(folder) / FILE)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line. Names carry room and unit: "rollout/tokens_per_s".

        `float()` waits for a device array: to keep the device busy, write a step late.
        A value that is not finite becomes null, since NaN is not JSON.
        """
        numbers = {name: float(value) for name, value in values.items()}
        self.append(step, {name: x if math.isfinite(x) else None for name, x in numbers.items()})


def read(folder: str | Path) -> list[dict[str, float]]:
    """The rows written so far, in order; null reads as nan. [] before the first write.

    Raises UserError for a file that holds anything else.
    """
    path = Path(folder) / FILE
    rows = [
        {name: math.nan if value is None else value for name, value in row.items()} for _, row in _lines(path)
    ]
    if not all(type(value) in (int, float) for row in rows for value in row.values()):
        raise UserError(f"{path} is damaged (a value is no number): remove it to start its curves anew")
    return rows


def _lines(path: Path) -> list[tuple[bytes, dict]]:
    """Every whole line as it stands, and what it says."""
    if not path.exists():
        return []
    *lines, unfinished = path.read_bytes().split(b"\n")
    del unfinished  # "" after a whole line; what a killed writer left otherwise
    try:
        rows = [parse_json(line) for line in lines]
        if not all(isinstance(row, dict) and type(row.get("step")) is int for row in rows):
            raise ValueError("a line has no step")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): remove it to start its curves anew") from error
    return list(zip(lines, rows, strict=True))
