"""Writes the metrics of runs for TensorBoard: `python -m launch.tensorboard WORKDIR [WORKDIR ...]`.

Reads each WORKDIR/metrics.jsonl and rewrites WORKDIR/tensorboard, one event file; the run may still be
active. `tensorboard --logdir=runs` (pip install tensorboard) then shows all of them. Curves are by step,
since metrics.jsonl has no time of day. Values that are not finite are left out; an @ in a name becomes _.
"""

import math
from pathlib import Path

from tensorboardX import SummaryWriter

from r2rec_jax.cli import command
from r2rec_jax.runtime import metric_writer
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import new_folder

FOLDER = "tensorboard"


def main(arguments: list[str]) -> None:
    if not arguments:
        raise UserError("name the workdirs of training runs: python -m launch.tensorboard runs/a runs/b")
    runs = {Path(argument): metric_writer.read(argument) for argument in arguments}
    for workdir, rows in runs.items():
        if not rows:
            raise UserError(f"{workdir} has no {metric_writer.FILE}: name the workdir of a training run")
        _require_own(workdir / FOLDER)
    for workdir, rows in runs.items():
        print(f"{workdir / FOLDER}: {write_events(workdir / FOLDER, rows):,} values")


def write_events(folder: Path, rows: list[dict[str, float]]) -> int:
    """Writes rows of `metric_writer.read` as scalars; returns their number. Replaces the folder."""
    count = 0
    with new_folder(folder, overwrite=True) as fresh, SummaryWriter(str(fresh)) as writer:
        for row in rows:
            values = {name: value for name, value in row.items() if name != "step" and math.isfinite(value)}
            for name, value in values.items():
                writer.add_scalar(name, value, int(row["step"]))
            count += len(values)
    return count


def _require_own(folder: Path) -> None:
    """Raises UserError for a folder with anything but event files, which would be cleared."""
    if folder.exists() and not all("tfevents" in path.name for path in folder.iterdir()):
        raise UserError(f"{folder} has other files than TensorBoard events: move them away")


if __name__ == "__main__":
    command.run_plain(main, takes=())
