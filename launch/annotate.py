"""Teacher traces for the SFT users, each judged before it may be learnt.

python -m launch.annotate --config=configs/data.py:ml-1m --workdir=runs/ml1m/annotate

`--config.annotate.teacher=openai` asks a server, `local` a model of this repository. Interrupt it as you
like: the same command goes on, and asks for nothing twice.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.annotation import main

if __name__ == "__main__":
    command.run(main)
