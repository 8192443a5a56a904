"""Text tables of a suite's results, and of their changes since an earlier run."""

import math
from pathlib import Path

from r2rec_jax.bench.result import Row
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.text_table import text_table
from r2rec_jax.runtime.untrusted import parse_json


def table(rows: list[Row], absent: str = "no peers' environment") -> str:
    """A table of the rows: medians with spreads, ratio, target, limit and verdict.

    `absent` is the text in the peer column of rows without a peer.
    """
    columns, lines = ("", "ours", "peer", "ratio", "target", "limit", "met"), []
    for row in rows:
        peer = absent if row.peer is None else _value(row.peer, row.unit, row.spread[1])
        lines.append(
            (
                row.name,
                _value(row.ours, row.unit, row.spread[0]),
                peer,
                "" if row.ratio is None else f"{row.ratio:.2f}x",
                "" if row.target is None else f">= {row.target:g}x",
                "" if row.limit is None else f"{row.limit:.3g}x",
                {True: "yes", False: "NO", None: ""}[row.met],
            )
        )
    return text_table(lines, columns)


def read_rows(path: Path) -> list[dict]:
    """Reads the rows of an earlier run's JSON. Raises UserError if the file is missing or invalid."""
    try:
        rows = parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: use a file that launch.bench has written") from error
    except ValueError as error:
        raise UserError(f"{path} is not a result of launch.bench ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _is_row(row) for row in rows):
        raise UserError(
            f"{path} is not a result of launch.bench: it is not a list of rows with medians and spreads"
        )
    return rows


def _is_row(row: dict) -> bool:
    try:
        ours, theirs = row["spread"]
        numbers = [row["ours"], ours] if row["ratio"] is None else [row["ours"], ours, row["ratio"], theirs]
        positive = row["ours"] > 0 and (row["ratio"] is None or row["ratio"] > 0)
        return (
            positive and all(map(math.isfinite, numbers)) and {type(row["name"]), type(row["unit"])} == {str}
        )
    except (KeyError, ValueError, TypeError, OverflowError):
        return False


def drift(rows: list[Row], before: list[dict]) -> str:
    """A table that compares each row with the row of the same name in an earlier SUITE.json.

    The verdict is "better" or "WORSE" if the change exceeds the sum of both runs' spreads. It is based on the
    ratio if both runs have the peer, because the load of the machine affects the ratio less. Otherwise it is
    based on our median.
    """
    earlier = {row["name"]: row for row in before}
    columns = ("", "ours before", "now", "change", "ratio before", "now", "change", "verdict")
    lines = []
    for row in rows:
        old = earlier.pop(row.name, None)
        if old is None:
            lines.append((row.name, "", _value(row.ours, row.unit, row.spread[0]), "", "", "", "", "new"))
            continue
        gain = old["ours"] / row.ours
        if row.unit.endswith("/s"):
            gain = 1 / gain
        spread = old["spread"][0] + row.spread[0]
        ratios = ("", "", "")
        if row.ratio is not None and old["ratio"] is not None:
            gain = row.ratio / old["ratio"]
            spread += old["spread"][1] + row.spread[1]
            ratios = f"{old['ratio']:.2f}x", f"{row.ratio:.2f}x", f"{gain - 1:+.0%}"
        verdict = "within spread" if abs(gain - 1) <= spread else "better" if gain > 1 else "WORSE"
        lines.append(
            (
                row.name,
                _value(old["ours"], old["unit"], old["spread"][0]),
                _value(row.ours, row.unit, row.spread[0]),
                f"{row.ours / old['ours'] - 1:+.0%}",
                *ratios,
                verdict,
            )
        )
    lines += [(name, "", "", "", "", "", "", "gone") for name in earlier]
    return text_table(lines, columns)


def _value(median: float, unit: str, spread: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(abs(median)))) if median else 0
    return f"{median:,.{digits}f} {unit} ±{spread:.0%}"
