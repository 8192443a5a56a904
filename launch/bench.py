"""Measures a suite beside its peers: `python -m launch.bench SUITE [--peers=PYTHON] [--out=FILE]`.

A suite is a function of r2rec_jax/bench, listed in SUITES below:

    def run(peers: str | None, quick: bool) -> list[Row]: ...

`peers` is the Python of the peers' environment, with torch; without it the peers' numbers are left out.
`--quick` uses the smallest sizes, to check that a suite runs; its numbers are meaningless. `all` runs every
suite in its own process. `--against=FILE` also shows the change since an earlier JSON (with `all`: a folder
of them).

    python -m launch.bench --device=gpu --model=llama3_8b --weights=random

measures the 8B's programs on the present device, with random weights (r2rec_jax/bench/device.py).
"""

import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from r2rec_jax import bench
from r2rec_jax.bench.result import Row
from r2rec_jax.bench.table import drift, read_rows, table
from r2rec_jax.cli import command
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic

# Suite -> (module of r2rec_jax/bench, function). A module is imported when its suite runs.
SUITES = {
    "attention": ("micro", "attention"),
    "chains": ("chains", "run"),
    "grpo": ("grpo", "run"),
    "load": ("load", "run"),
    "loss_head": ("micro", "loss_head"),
    "pipeline": ("pipeline", "run"),
    "records": ("micro", "records"),
    "rollout": ("rollout", "run"),
    "sft": ("sft", "run"),
}
ALL = "all"

FLAGS = flags.FLAGS
flags.DEFINE_string("peers", None, "Python of the peers' environment, with torch")
flags.DEFINE_string("out", None, "JSON file to write; bench/SUITE.json if not given")
flags.DEFINE_bool("quick", False, "smallest sizes, to check that the suite runs")
flags.DEFINE_string("against", None, "an earlier JSON file of the suite, to show changes")
flags.DEFINE_enum("device", None, ["cpu", "gpu"], "measure the model's programs on it instead of a suite")
flags.DEFINE_string("model", "llama3_8b", "what --device measures: llama3_8b or tiny")
flags.DEFINE_enum("weights", "random", ["random"], "of the model of --device")


def main(arguments: list[str]) -> None:
    if FLAGS.device:
        if arguments:
            raise UserError(f"--device measures its own table: leave out {arguments[0]!r}")
        run = importlib.import_module(f"{bench.__name__}.device").run
        _measure(f"{FLAGS.device}_{FLAGS.model}", lambda: run(FLAGS.device, FLAGS.model), "no target here")
        return
    if len(arguments) != 1 or arguments[0] not in (*SUITES, ALL):
        raise UserError(f"name one suite of {', '.join((*SUITES, ALL))}: python -m launch.bench SUITE")
    suite = arguments[0]
    if suite == ALL:
        _measure_all()
        return
    module, name = SUITES[suite]
    run = getattr(importlib.import_module(f"{bench.__name__}.{module}"), name)
    _measure(suite, lambda: run(FLAGS.peers, FLAGS.quick), "no peers' environment")


def _measure(suite: str, run: Callable[[], list[Row]], absent: str) -> None:
    out = _free(Path(FLAGS.out or f"bench/{suite}.json"))
    before = read_rows(Path(FLAGS.against)) if FLAGS.against else None
    rows = run()
    write_atomic(out, json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
    print(table(rows, absent), f"written to {out}", sep="\n\n")
    if before is not None:
        print(f"\nagainst {FLAGS.against}\n", drift(rows, before), sep="\n")


def _measure_all() -> None:
    """Runs each suite in its own process, so that they share no state; a failure does not stop the others."""
    if FLAGS.out:
        raise UserError("--out names one suite's file; all of them go to bench/SUITE.json")
    against = {}
    for suite in SUITES:
        _free(Path(f"bench/{suite}.json"))
        if FLAGS.against:
            against[suite] = Path(FLAGS.against) / f"{suite}.json"
            read_rows(against[suite])
    failed = []
    for suite in SUITES:
        print(f"\n{suite}", flush=True)
        flags_of = [f"--peers={FLAGS.peers}"] if FLAGS.peers else []
        flags_of += [f"--against={against[suite]}"] if suite in against else []
        flags_of += ["--quick"] if FLAGS.quick else []
        flags_of += ["--overwrite"] if FLAGS.overwrite else []
        if subprocess.run([sys.executable, "-m", "launch.bench", suite, *flags_of], check=False).returncode:
            failed.append(suite)
    if failed:
        raise UserError(f"these suites failed (see their output above): {', '.join(failed)}")


def _free(out: Path) -> Path:
    if out.exists() and not FLAGS.overwrite:
        raise UserError(f"{out} already exists: add --overwrite to measure again, or name another --out")
    return out


if __name__ == "__main__":
    command.run_plain(main)
