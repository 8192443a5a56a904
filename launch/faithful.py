"""Tests whether a policy's reasons are real.

    python -m launch.faithful --config=configs/faithful.py:quickstart --workdir=runs/quickstart/faithful

Three questions for each of the config's `systems`. Does the ranking follow the prompt: chains are removed,
swapped and flipped, beside control edits (faithful/edits.py). Does it follow the reasoning: the reasoning
is removed, halved, or replaced by another user's (faithful/trials.py). Does the prompt support what the
reasoning states (teachers/facts.py).

Writes to WORKDIR: users.jsonl, a line per user and run, from which the same command resumes; faithful.json,
the measures (faithful/measures.py); faithful.txt, the tables; unsupported.jsonl, every statement that its
prompt does not support, with reasoning and prompt.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.faithfulness import main

if __name__ == "__main__":
    command.run(main, reads=("systems", "users"))
