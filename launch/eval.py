"""Ranks the evaluation users' frozen candidates with every system of the config.

    python -m launch.eval --config=configs/eval.py --workdir=runs/ml1m/eval

WORKDIR/users.jsonl gets a line as soon as a user is ranked; metrics.json is written at the end. The same
command resumes an interrupted run and ends with the same numbers.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.evaluation import main

if __name__ == "__main__":
    command.run(main, reads=("systems", "reward"))
