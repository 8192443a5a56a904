"""Tests whether reasons are real.

    python -m launch.faithful --config=configs/faithful.py:quickstart --workdir=runs/quickstart/faithful

Three questions to each policy of `systems`. Does the ranking follow the prompt: chains are cut, swapped and
flipped, beside edits that should not matter (faithful/edits.py). Does it follow the reasoning: that
is taken away, halved, or another user's (faithful/trials.py). Does the prompt say what the reasoning
states (teachers/facts.py).

WORKDIR/users.jsonl has a line for each user and run; interrupted, the same command goes on with those left.
faithful.json has the measures (faithful/measures.py), faithful.txt the tables, unsupported.jsonl
every statement that its prompt does not support, with reasoning and prompt to read.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.faithfulness import main

if __name__ == "__main__":
    command.run(main, reads=("systems", "users"))
