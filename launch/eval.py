"""Evaluates: `python -m launch.eval --config=configs/eval.py --workdir=runs/ml1m/eval`.

Has each system rank every evaluation user's frozen candidates.
WORKDIR/users.jsonl gets a line as soon as a user's ranking is there, metrics.json is written when all are.
Interrupted, the same command goes on with the users that are left, and ends with the same numbers.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.evaluation import main

if __name__ == "__main__":
    command.run(main, reads=("systems", "reward"))
