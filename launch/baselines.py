"""Ranks without a language model: `python -m launch.baselines --config=configs/baselines.py --workdir=DIR`.

Trains each of the config's `systems` in its own folder of the workdir, going on where an interrupted run
stood, and writes users.jsonl and metrics.json (rank/results.py) of the evaluation users.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.baseline_ranking import main

if __name__ == "__main__":
    command.run(main, reads=("systems",))
