"""Writes teacher traces for the SFT users; a validator accepts or rejects each.

    python -m launch.annotate --config=configs/data.py:ml-1m --workdir=runs/ml1m/annotate

`--config.annotate.teacher=openai` uses a server, `local` a model of this repository. The same command resumes
an interrupted run and requests nothing twice.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.annotation import main

if __name__ == "__main__":
    command.run(main)
