"""Profiles a few steps of any training config: time by phase and scope, and the share of the device's peak.

    python -m launch.profile --config=configs/grpo.py:quickstart --workdir=runs/profile

Sets the stage up as launch.train does and runs its own steps, without evaluations and checkpoints: warm-up
until nothing compiles, --steps timed steps, then as many under the profiler. Two micro-benchmarks measure
the device's ceilings. Prints a table and writes WORKDIR/profile.json. The trace in WORKDIR/trace opens in
XProf, TensorBoard's profile plugin and (its *.trace.json.gz) ui.perfetto.dev.
"""

import json
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from r2rec_jax.cli import command
from r2rec_jax.performance.capture import Capture, compilations
from r2rec_jax.performance.profile import make_profile
from r2rec_jax.performance.profile_text import render
from r2rec_jax.runs import training
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.measured_peaks import copy_bandwidth, matmul_flops
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.train.state import CHECKPOINTS

STEPS = flags.DEFINE_integer("steps", 3, "timed steps, and as many steps under the profiler")
HLO = flags.DEFINE_bool("hlo", False, "write each program's optimised HLO to WORKDIR/hlo")


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    if STEPS.value < 1:
        raise UserError(f"--steps={STEPS.value}: use 1 or more")
    if (workdir / CHECKPOINTS).exists():
        raise UserError(f"--workdir {workdir} has a training run: choose another --workdir for the profile")
    path = workdir / "profile.json"
    if path.exists() and not overwrite:
        raise UserError(f"{path} already exists: add --overwrite to profile again")
    # Compilation is measured, so the compilation cache is off.
    jax.config.update("jax_enable_compilation_cache", False)
    with compilations() as compiled:
        capture = Capture(STEPS.value, workdir / "trace", compiled)
        training.main(config, workdir, overwrite, drive=capture.drive)
        seconds = sum(taken for _, taken in compiled)
    ceilings = {"dtype": config.model.dtype, "flops": matmul_flops(config.model.dtype)}
    ceilings["bandwidth"] = copy_bandwidth()
    profile = make_profile(config, make_mesh(**config.mesh), capture, ceilings, seconds)
    if HLO.value:
        for (name, number), program in capture.programs.items():
            write_atomic(workdir / "hlo" / f"{name}-{number}.txt", program.text)
    write_atomic(path, json.dumps(profile, indent=2) + "\n")
    print(render(profile), f"written to {path}; trace in {workdir / 'trace'}", sep="\n\n")


if __name__ == "__main__":
    command.run(main, resumes=False, reads=("stage",))
