"""Why a user was recommended what: from finished results, without the model.

    python -m launch.explain --config=configs/reproduce.py:quickstart --workdir=runs/quickstart --user=855

Prints who the user is, the likes and chains of the prompt, the candidates, the reasoning step by step with
what each step names, and the ranking of the finished policy with the truth marked; then where every system
ranked it. Reads WORKDIR/{data,eval} as launch.reproduce leaves them; of a table's run, pass one of its
seeds: --workdir=runs/table1/seed0.
"""

import os
import shutil
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from launch import command
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data import prepared
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.evaluate.cases import build_case
from r2rec_jax.evaluate.results import UserLines, read_metrics
from r2rec_jax.evaluate.terminal import case_text
from r2rec_jax.runtime.errors import UserError

USER = flags.DEFINE_integer("user", None, "whose recommendation to explain: a `user` of eval/users.jsonl")


def main(config: ConfigDict, workdir: Path, _: bool) -> None:
    styled = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(explain(config, workdir, USER.value, shutil.get_terminal_size().columns, styled))


def explain(config: ConfigDict, workdir: Path, user: int | None, width: int, styled: bool) -> str:
    """The user's case as text. Raises UserError for a user who was not evaluated, naming the nearest."""
    results = read_metrics(workdir / "eval")
    dataset = prepared.load(workdir / "data")
    _check(user, dataset, workdir)
    lines = UserLines(workdir / "eval", dataset)
    policy = list(config.eval.systems)[-1]
    (row,) = lines.of(policy, 0, [user])
    case = build_case(
        row,
        dataset,
        build_graph(dataset),
        config.prompt,
        seed=results["seed"],
        before_target_time=config.data.before_target_time,
    )
    ranks = {name: int(lines.ranks(name, [user])[0, 0]) for name in results["systems"]}
    others = [f"  {name}: {rank or 'not in its answer'}" for name, rank in ranks.items()]
    text = case_text(case, width=width, styled=styled)
    return "\n".join([text, "", f"The truth's rank, by system (above: {policy})", *others])


def _check(user: int | None, dataset: Dataset, workdir: Path) -> None:
    evaluated = dataset.split.users["evaluation"].tolist()
    nearest = ", ".join(map(str, sorted(evaluated, key=lambda one: abs(one - (user or 0)))[:3]))
    if user is None:
        raise UserError(f"--user is missing: pass one who was evaluated, e.g. --user={evaluated[0]}")
    if not 0 <= user < dataset.interactions.n_users:
        raise UserError(
            f"no user {user} in {workdir / 'data'}: users are 0 to {dataset.interactions.n_users - 1}; "
            f"the nearest evaluated ones are {nearest}"
        )
    if user not in evaluated:
        group = next((name for name, users in dataset.split.users.items() if user in users), "no")
        raise UserError(
            f"user {user} belongs to the {group} group and was not evaluated: try one of {nearest}"
        )


if __name__ == "__main__":
    command.run(main)
