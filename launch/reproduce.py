"""The whole road, from ratings to a report, and the paper's tables.

    python -m launch.reproduce --config=configs/reproduce.py:quickstart --workdir=runs/quickstart

prepare -> annotate -> SFT -> GRPO -> baselines -> evaluation -> report, each in its own folder of the
workdir; with `config.tables` this for every seed (launch/tables.py). A stage that is done is skipped, one
that was interrupted goes on where it stood.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.reproduction import main

if __name__ == "__main__":
    command.run(main, reads=("sft", "tables"))
