"""Metrics as JSON lines, one a write: `{"step": 7, "train/loss": 1.25}`, readable as it grows."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic

FILE = "metrics.jsonl"


class MetricWriter:
    """Appends to `folder`/metrics.jsonl. Lines may share a step (train, then evaluation)."""

    def __init__(self, folder: str | Path):
        self._path = Path(folder) / FILE
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line. Names carry room and unit: "rollout/tokens_per_s".

        `float()` waits for a device array: to keep the device busy, write a step late.
        A value that is not finite becomes null, since NaN is not JSON.
        """
        row = {"step": int(step)}
        for name, value in values.items():
            number = float(value)
            row[name] = number if math.isfinite(number) else None
        with open(self._path, "a", encoding="utf-8") as file:  # closing it flushes the line
            file.write(json.dumps(row) + "\n")

    def truncate_after(self, step: int) -> None:
        """Drops every line beyond `step`, and a half-written last one: call it on resuming."""
        rows = [row for row in _rows(self._path) if row["step"] <= step]
        write_atomic(self._path, "".join(json.dumps(row) + "\n" for row in rows))


def read(folder: str | Path) -> list[dict[str, float]]:
    """The rows written so far, in order; null reads as nan. [] before the first write."""
    return [
        {name: math.nan if value is None else value for name, value in row.items()}
        for row in _rows(Path(folder) / FILE)
    ]


def _rows(path: Path) -> list[dict]:
    if not path.exists():
        return []
    *lines, unfinished = path.read_text(encoding="utf-8").split("\n")
    del unfinished  # "" after a whole line; what a killed writer left otherwise
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): remove it to start its curves anew") from error
