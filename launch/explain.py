"""Prints one user's recommendation with its reasons, from finished results, without the model.

    python -m launch.explain --config=configs/reproduce.py:quickstart --workdir=runs/quickstart --user=855

Shows the user, the likes and chains of the prompt, the candidates, the reasoning with what each step names,
the ranking of the finished policy with the held-out item marked, and the rank that every system gave it.
Reads what launch.reproduce leaves in WORKDIR. For the paper's tables, pass one of the seeds:
--workdir=runs/tables/seed0.
"""

import os
import shutil
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.cli import command
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.report.case_text import case_text
from r2rec_jax.report.cases import build_case
from r2rec_jax.runs.finished import read_finished
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.plain_text import plain

USER = flags.DEFINE_string(
    "user", None, "user to explain: a user_id of eval/users.jsonl, as in the raw files"
)


def main(config: ConfigDict, workdir: Path, _: bool) -> None:
    styled = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(explain(config, workdir, USER.value, shutil.get_terminal_size().columns, styled))


def explain(config: ConfigDict, workdir: Path, user_id: str | None, width: int, styled: bool) -> str:
    """The user's case as text. Raises UserError for a user who was not evaluated, naming the nearest."""
    finished = read_finished(workdir)
    if not (policy := finished.policy):
        raise UserError(
            f"no results of R2Rec in {workdir}: run launch.reproduce into it to the end, or launch.eval"
        )
    user = _evaluated(user_id, finished.dataset)
    (row,) = finished.lines[policy].of(policy, 0, [user])
    graph, (prompt, before) = (
        build_graph(finished.dataset),
        finished.prompt_of(policy, config.prompt, config.data),
    )
    case = build_case(row, finished.dataset, graph, prompt, seed=finished.seed, before_target_time=before)
    text = [case_text(case, width=width, styled=styled), "", "Rank of the held-out item by system"]
    for name, lines in finished.lines.items():
        (row,) = lines.of(name, 0, [user])
        missed = "not in its answer" if row.get("valid", True) else "a miss: its answer breaks the form"
        text.append(f"  {plain(finished.about(name).label)}: {row['truth_rank'] or missed}")
    return "\n".join(text)


def _evaluated(user_id: str | None, dataset: Dataset) -> int:
    """The number of the user. Raises UserError for a user who is unknown or was not evaluated."""
    ids, evaluated = dataset.catalog.user_ids, dataset.split.users["evaluation"].tolist()
    if user_id is None:
        raise UserError(f"--user is missing: pass an evaluated user, e.g. --user={ids[evaluated[0]]}")
    user = dataset.find_user(user_id)
    if user not in evaluated:
        group = next((name for name, users in dataset.split.users.items() if user in users), "no")
        some = ", ".join(ids[number] for number in evaluated[:3])
        raise UserError(
            f"user {user_id} belongs to the {group} group and was not evaluated: try one of {some}"
        )
    return user


if __name__ == "__main__":
    command.run(main, resumes=False)
