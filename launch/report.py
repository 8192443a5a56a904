"""Writes the HTML page of a finished run, or a page for each of its tables.

    python -m launch.report --config=configs/reproduce.py:quickstart --workdir=runs/quickstart

Reads what launch.reproduce leaves in WORKDIR. Writes report.html there, and its table as report.md and
report.json; for the paper's tables table1.html and so on.
"""

from r2rec_jax.cli import command
from r2rec_jax.runs.report_pages import main

if __name__ == "__main__":
    command.run(main, resumes=False, reads=("sft", "tables"))
