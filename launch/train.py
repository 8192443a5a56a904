"""Trains an adapter or a base model: SFT, GRPO, pretraining, TALLRec or LLaRA, by the config's `stage`.

    python -m launch.train --config=configs/grpo.py --workdir=runs/ml1m/grpo

The same command resumes from the newest checkpoint in the workdir. Each config file says what it needs.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.training import main

if __name__ == "__main__":
    command.run(main, several_processes=True, reads=("stage",))
