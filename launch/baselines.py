"""Ranks with systems that need no language model.

    python -m launch.baselines --config=configs/baselines.py --workdir=runs/ml1m/baselines

Trains each of the config's `systems` in its own folder of the workdir, and writes users.jsonl and
metrics.json (rank/results.py) of the evaluation users. The same command resumes.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.baseline_ranking import main

if __name__ == "__main__":
    command.run(main, reads=("systems",))
