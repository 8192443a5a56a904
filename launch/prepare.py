"""Turns raw ratings into a prepared data folder.

    python -m launch.prepare --config=configs/data.py:ml-1m --workdir=runs/ml1m/data

Raw files are read, cleaned by the rules of data/cleaning.py, split by the protocol and audited. The folder
appears in one move. WORKDIR.staging holds what was parsed of large files until then, so that a killed run
resumes from it. If the result of the same command is there, the command ends with code 0.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.preparation import main

if __name__ == "__main__":
    command.run(main)
