"""Plans a run without an accelerator: memory, FLOPs, collectives and roofline on given devices.

    python -m launch.plan --config=configs/grpo.py --devices=2xA100-80G

Compiles the config's real programs ahead of time on shapes alone, about a minute each on two CPU cores.
Prints parameters, FLOPs, bytes per device by kind, the largest batch, collectives and roofline times. The
model's weights need not be there. With --workdir the numbers are also written to WORKDIR/plan.json.
"""

import json
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from r2rec_jax.cli import command
from r2rec_jax.performance.plan import make_plan
from r2rec_jax.performance.plan_text import render
from r2rec_jax.runtime.devices import DEVICES, parse_devices
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.paths import write_atomic

DEVICES_FLAG = flags.DEFINE_string("devices", None, f"COUNTxNAME, with one of {', '.join(DEVICES)}")


def main(config: ConfigDict, workdir: Path | None, overwrite: bool) -> None:
    if not DEVICES_FLAG.value:
        raise UserError("--devices is missing: e.g. --devices=2xA100-80G")
    count, device = parse_devices(DEVICES_FLAG.value)
    path = workdir / "plan.json" if workdir else None
    if path and path.exists() and not overwrite:
        raise UserError(f"{path} already exists: add --overwrite to write it again")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)

    def progress(program: str) -> None:
        print(f"compiling {program} ...", file=sys.stderr, flush=True)

    plan = make_plan(config, make_mesh(**config.mesh), device, progress)
    print(render(plan))
    if path:
        write_atomic(path, json.dumps(plan, indent=2) + "\n")


if __name__ == "__main__":
    command.run(main, needs_workdir=False, resumes=False, reads=("stage",))
