"""Logs of a run as JSON lines, one a write: `{"step": 7, "train/loss": 1.25}`, readable as they grow."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from r2rec_jax.runtime.distributed import is_first
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic

FILE = "metrics.jsonl"


class StepLog:
    """Appends JSON objects that say what step they belong to; several may share one.

    Of the processes of a run the first alone writes.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, step: int, row: Mapping) -> None:
        if not is_first():
            return
        line = json.dumps({"step": int(step), **row}, ensure_ascii=False, allow_nan=False)
        with open(self._path, "a", encoding="utf-8") as file:  # closing it flushes the line
            file.write(line + "\n")

    def truncate_after(self, step: int) -> None:
        """Drops every line beyond `step`, and a half-written last one: call it on resuming."""
        if not is_first():
            return
        rows = [row for row in _rows(self._path) if row["step"] <= step]
        write_atomic(self._path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


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
