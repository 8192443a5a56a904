"""Writes the logs of a run as JSON lines, e.g. `{"step": 7, "train/loss": 1.25}`."""

import math
from collections.abc import Mapping
from pathlib import Path

from r2rec_jax.runtime.distributed import is_first
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import append_line, write_atomic
from r2rec_jax.runtime.untrusted import json_line, parse_json

FILE = "metrics.jsonl"


class StepLog:
    """Appends JSON objects with a "step"; several lines may have the same step.

    With several processes only the first one writes.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, step: int, row: Mapping) -> None:
        if is_first():
            append_line(self._path, json_line({"step": int(step), **row}))

    def truncate_after(self, step: int) -> None:
        """Drops all lines after `step` and an unfinished last line; called when a run resumes."""
        if is_first():
            kept = [line for line, row in _lines(self._path) if row["step"] <= step]
            write_atomic(self._path, b"".join(line + b"\n" for line in kept))


class MetricWriter(StepLog):
    """Writes the metrics of a run to `folder`/metrics.jsonl."""

    def __init__(self, folder: str | Path):
        super().__init__(Path(folder) / FILE)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line. Names have the form room/quantity_unit, e.g. "rollout/tokens_per_s".

        `float()` blocks until a device array is ready; write one step late to keep the device busy.
        A value that is not finite becomes null, because NaN is not JSON.
        """
        numbers = {name: float(value) for name, value in values.items()}
        self.append(step, {name: x if math.isfinite(x) else None for name, x in numbers.items()})


def read(folder: str | Path) -> list[dict[str, float]]:
    """The rows written so far, in order, with null as nan; [] before the first write.

    Raises UserError if the file is damaged.
    """
    path = Path(folder) / FILE
    rows = [
        {name: math.nan if value is None else value for name, value in row.items()} for _, row in _lines(path)
    ]
    if not all(type(value) in (int, float) for row in rows for value in row.values()):
        raise UserError(f"{path} is damaged (a value is no number): remove it to restart its curves")
    return rows


def _lines(path: Path) -> list[tuple[bytes, dict]]:
    """(bytes, parsed row) of every complete line."""
    if not path.exists():
        return []
    *lines, unfinished = path.read_bytes().split(b"\n")
    del unfinished  # "" after a complete line, otherwise the rest of a killed write
    try:
        rows = [parse_json(line) for line in lines]
        if not all(isinstance(row, dict) and type(row.get("step")) is int for row in rows):
            raise ValueError("a line has no step")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): remove it to restart its curves") from error
    return list(zip(lines, rows, strict=True))
