"""Kills commands at random moments, starts them again, and compares: `python -m tests.chaos`.

For each of --stages it runs the command twice undisturbed on generated data, a table and tiny models; then it
starts it in fresh folders and kills it with SIGKILL, --kills times in all, during start-up, work and writing,
until each folder's run ends. Every output must be equal bit for bit, nothing left behind, no process left
running. Prints a table, writes WORKDIR/chaos.json, and exits with code 1 where a stage fails.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax
from absl import flags

from r2rec_jax.cli import command
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic
from tests.chaos.harness import Harness, Trial
from tests.chaos.stages import NAMES, environment, make_model, make_table, stages
from tests.chaos.table import table

RECORD = "chaos.json"

STAGES = flags.DEFINE_list("stages", list(NAMES), "which commands to kill")
KILLS = flags.DEFINE_integer("kills", 50, "kills a stage", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the moments", lower_bound=0)


def main(arguments: list[str]) -> None:
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}: flags are written --name=value")
    if unknown := next((name for name in STAGES.value if name not in NAMES), None):
        raise UserError(f"--stages: {unknown!r} is none of {', '.join(NAMES)}")
    if not sys.platform.startswith("linux"):
        raise UserError("process groups and /proc are looked at as Linux has them: run this on Linux")
    jax.config.update("jax_platforms", "cpu")
    workdir = Path(command.FLAGS.workdir or "runs/chaos").absolute()
    _claim(workdir, command.FLAGS.overwrite)
    if "prepare" in STAGES.value:
        make_table(workdir)
    if "convert" in STAGES.value:
        make_model(workdir)
    known, trials = stages(workdir), []
    harness = Harness(workdir, environment(workdir), SEED.value)
    for name in STAGES.value:
        for needed in _all_needs(name, known):
            harness.whole(known[needed])
        trials.append(harness.kill(known[name], KILLS.value))
        _write(workdir, trials)
    print(table(trials), f"written to {workdir / RECORD}", sep="\n\n")
    if not all(trial.passed for trial in trials):
        sys.exit(1)


def _claim(workdir: Path, overwrite: bool) -> None:
    record = workdir / RECORD
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file: choose another --workdir")
    if record.is_file() and not overwrite:
        raise UserError(f"{record} already exists: add --overwrite to kill anew, or choose another --workdir")
    if workdir.exists() and not record.is_file() and any(workdir.iterdir()):
        raise UserError(f"--workdir {workdir} holds files but no {RECORD}: choose another --workdir")
    shutil.rmtree(workdir, ignore_errors=True)
    _write(workdir, [])


def _write(workdir: Path, trials: list[Trial]) -> None:
    rows = [dataclasses.asdict(trial) | {"passed": trial.passed} for trial in trials]
    record = {"seed": SEED.value, "kills": KILLS.value, "stages": rows}
    write_atomic(workdir / RECORD, json.dumps(record, indent=2) + "\n")


def _all_needs(name: str, known: dict) -> list[str]:
    """The stages that `name` reads from, and those that they do, in an order in which each can run."""
    needs = []
    for needed in known[name].needs:
        needs += [*_all_needs(needed, known), needed]
    return list(dict.fromkeys(needs))


if __name__ == "__main__":
    command.run_plain(main, takes=("workdir", "overwrite"))
