"""Measures a suite beside its peers: `python -m launch.bench SUITE [--peers=PYTHON] [--out=FILE]`.

A suite is a module `r2rec_jax/bench/SUITE.py` with

    def run(peers: str | None, quick: bool) -> list[Row]: ...

`peers` is the python of the peers' own environment, with torch; without it a suite leaves the peer's
numbers out. `--quick` takes the smallest sizes: it shows that a suite runs, its numbers mean nothing.
"""

import dataclasses
import importlib
import json
import math
import pkgutil
from pathlib import Path

from absl import flags

from launch import command
from r2rec_jax import bench
from r2rec_jax.bench.result import Row
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic

HELPERS = ("models", "result")  # modules of the folder that are no suites

FLAGS = flags.FLAGS
flags.DEFINE_string("peers", None, "python of the environment that holds the peers (torch and theirs)")
flags.DEFINE_string("out", None, "JSON file to write; bench/SUITE.json if not given")
flags.DEFINE_bool("quick", False, "smallest sizes, to see that the suite runs")


def main(arguments: list[str]) -> None:
    modules = [module.name for module in pkgutil.iter_modules(bench.__path__)]
    known = [name for name in modules if name not in HELPERS]
    if len(arguments) != 1 or arguments[0] not in known:
        raise UserError(f"name one suite of {', '.join(known)}: python -m launch.bench SUITE")
    suite = arguments[0]
    out = Path(FLAGS.out or f"bench/{suite}.json")
    if out.exists() and not FLAGS.overwrite:
        raise UserError(f"{out} already exists: add --overwrite to measure anew, or name another --out")
    rows = importlib.import_module(f"{bench.__name__}.{suite}").run(FLAGS.peers, FLAGS.quick)
    write_atomic(out, json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
    print(table(rows), f"written to {out}", sep="\n\n")


def table(rows: list[Row]) -> str:
    """The rows as aligned text: medians, each with its spread, then ratio, target and verdict."""
    lines = [("", "ours", "peer", "ratio", "target", "met")]
    for row in rows:
        peer = "no peers' environment" if row.peer is None else _value(row.peer, row.unit, row.spread[1])
        lines.append(
            (
                row.name,
                _value(row.ours, row.unit, row.spread[0]),
                peer,
                "" if row.ratio is None else f"{row.ratio:.2f}x",
                "" if row.target is None else f">= {row.target:g}x",
                {True: "yes", False: "NO", None: ""}[row.met],
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _value(median: float, unit: str, spread: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(abs(median)))) if median else 0
    return f"{median:,.{digits}f} {unit} ±{spread:.0%}"


if __name__ == "__main__":
    command.run_plain(main)
