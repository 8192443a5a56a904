"""Prepares data: `python -m launch.prepare --config=configs/data.py:ml-1m --workdir=runs/ml1m/data`.

Raw files are read, cleaned by the rules of data/cleaning.py, split by the protocol and audited; then the
folder appears in one move. Beside it, WORKDIR.staging keeps what was parsed of large files until the
folder is there, so that a run that was killed goes on from them. Given again, the same command finds the
data there and ends.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.preparation import main

if __name__ == "__main__":
    command.run(main)
