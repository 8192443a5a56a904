"""Trains: `python -m launch.train --config=configs/grpo.py --workdir=runs/grpo`.

Also configs/sft.py; configs/tallrec.py and configs/llara.py train systems to compare with.

Resumes what --workdir already holds. Each config file says what it needs and what to expect.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.training import main

if __name__ == "__main__":
    command.run(main, several_processes=True, reads=("stage",))
