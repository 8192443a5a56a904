"""Writes every reply of a teacher or server to disk on arrival, so that no paid reply is lost."""

from pathlib import Path

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import append_line, write_atomic
from r2rec_jax.runtime.untrusted import json_line, parse_json

FILE = "replies.jsonl"
MOST = 1 << 53  # limit on token counts and costs, so that sums stay finite and exact
FIELDS = {
    "user": int,
    "task": str,
    "refused": str | None,
    "text": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "cost": float | int,
}


class Journal:
    """The rows of `folder`/replies.jsonl, in order of arrival; `append` writes a row to disk.

    A teacher's row has user, task, refused (one of REASONS, or None if accepted), text, prompt_tokens,
    completion_tokens and cost. An unfinished last line, left by a killed process, is dropped.
    """

    def __init__(self, folder: str | Path, fields: dict[str, type] = FIELDS):
        """`fields`: names and types of a row's fields. Raises UserError naming an invalid line."""
        self.path = Path(folder) / FILE
        self.rows: list[dict] = []
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            self.rows.append(_row(line, fields, f"{self.path}:{number}"))
        if whole != data:
            write_atomic(self.path, whole)

    def append(self, row: dict) -> None:
        self.rows.append(row)
        append_line(self.path, json_line(row))

    @property
    def cost(self) -> float:
        return sum(row["cost"] for row in self.rows)


def _row(line: bytes, fields: dict[str, type], where: str) -> dict:
    try:
        row = parse_json(line)
        valid = all(isinstance(row[name], kind) for name, kind in fields.items())
        # A NaN in a sum would disable the cost limit.
        numbers = (row[name] for name in fields if isinstance(row[name], int | float))
        valid = valid and all(0 <= number < MOST for number in numbers)
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise UserError(f"{where} is not a valid reply: remove the line to send the request again")
    return row
