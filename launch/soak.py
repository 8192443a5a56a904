"""Trains for long and says whether anything grows.

    python -m launch.soak --config=configs/soak.py --workdir=runs/soak

Prepares WORKDIR/data, trains in WORKDIR/train as launch.train would, and measures on the way the memory of
the run and its workers, arrays on devices, open files, threads and the time of a step. Prints a table, writes
WORKDIR/soak.json and soak.svg, and exits with code 1 where something grows by more than it may.
"""

import json
import sys
from pathlib import Path

from ml_collections import ConfigDict

from r2rec_jax.chaos.soak import Meter, figure, table, verdict
from r2rec_jax.cli import command
from r2rec_jax.data.prepared import MANIFEST
from r2rec_jax.runs import preparation, training
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.train import loop


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    if "soak" not in config:
        raise UserError("this config has no section soak: use --config=configs/soak.py")
    meter = Meter(config.soak.every)
    config.data.folder = str(workdir / "data")
    if not (workdir / "data" / MANIFEST).exists():
        preparation.main(config, workdir / "data", False)

    def drive(config, workdir, state, batches, advance, *rest, **named):
        return loop.run(config, workdir, state, batches, meter.around(advance), *rest, **named)

    # What has been measured of a run that was interrupted is of another process: it begins anew.
    training.main(config, workdir / "train", overwrite, drive=drive)
    if not meter.rows:
        raise UserError(f"{workdir} had been done before: add --overwrite to measure anew")
    found = verdict(meter.rows)
    write_atomic(workdir / "soak.json", json.dumps({"needs": found, "rows": meter.rows}, indent=1) + "\n")
    write_atomic(workdir / "soak.svg", figure(meter.rows))
    print(table(found), f"written to {workdir / 'soak.json'}, drawn in {workdir / 'soak.svg'}", sep="\n\n")
    if not all(need["flat"] for need in found):
        sys.exit(1)


if __name__ == "__main__":
    command.run(main, reads=("soak",))
