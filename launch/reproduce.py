"""Runs the full pipeline, from ratings to a report, or the paper's tables.

    python -m launch.reproduce --config=configs/reproduce.py:quickstart --workdir=runs/quickstart

prepare -> annotate -> SFT -> GRPO -> baselines -> evaluation -> report, each in its own folder of the
workdir. With `config.tables` this is done for every seed (runs/paper_tables.py). Finished stages are
skipped, interrupted ones resume.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.reproduction import main

if __name__ == "__main__":
    command.run(main, reads=("sft", "tables"))
