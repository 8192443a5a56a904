"""One HTML page of a finished run.

    python -m launch.report --config=configs/reproduce.py:quickstart --workdir=runs/quickstart

Reads WORKDIR/{data,sft,grpo,eval}, as launch.reproduce leaves them, and writes WORKDIR/report.html.
"""

from pathlib import Path

from ml_collections import ConfigDict

from launch import command
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data import prepared
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.evaluate.paper import paper_rows
from r2rec_jax.evaluate.report import Case, Curve, Report, render
from r2rec_jax.evaluate.results import UserLines, read_metrics
from r2rec_jax.prompts.ranking import make_record, shown_titles
from r2rec_jax.prompts.wording import wording
from r2rec_jax.runtime import metrics
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic

CASES = 3
GRPO_ALONE = "grpo_alone"  # folder of the run without SFT, where there is one


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    path = workdir / "report.html"
    if path.exists() and not overwrite:
        raise UserError(f"{path} already exists: add --overwrite to write it anew")
    write(config, workdir)


def write(config: ConfigDict, workdir: Path) -> Path:
    """Renders the page from what the stages wrote; returns its path."""
    results, dataset = read_metrics(workdir / "eval"), prepared.load(workdir / "data")
    systems = read_metrics(workdir / "baselines")["systems"] | results["systems"]
    grpo = config.grpo.train
    ours = list(config.eval.systems)
    finished = UserLines(workdir / "eval", dataset).of(ours[-1], 0, dataset.split.users["evaluation"])
    page = Report(
        title=f"R2Rec on {config.data.source}",
        facts={
            "Data": f"{config.data.source}, split seed {config.data.seed}",
            "Candidates": f"{config.data.candidates} a user, sha256 {results['candidates_sha256'][:12]}",
            "Evaluation users": str(results["users"]),
            "Model": config.model.folder,
            "Adapter": f"LoRA rank {config.lora.rank}, alpha {config.lora.alpha:g}",
            "SFT": f"{config.sft.train.steps} steps of {config.sft.train.batch_size}",
            "GRPO": f"{grpo.steps} steps of {grpo.batch_size} prompts x {config.grpo.grpo.group}",
            "Seed": str(config.seed),
        },
        systems=[{"name": name, **row, "ours": name in ours} for name, row in systems.items()],
        paper=paper_rows(config.data.source, config.data.category),
        curves=_curves(workdir),
        hr_by_position={
            name: [float("nan") if rate is None else rate for rate in systems[name]["hr@1_by_position"]]
            for name in ours[-1:]
        },
        cases=_cases(config, dataset, finished),
        candidates=config.data.candidates,
    )
    write_atomic(workdir / "report.html", render(page))
    return workdir / "report.html"


def _curves(workdir: Path) -> list[Curve]:
    def points(stage, name):
        return [(row["step"], row[name]) for row in metrics.read(workdir / stage) if name in row]

    rewards = {
        "sampled in training": points("grpo", "train/reward"),
        "validation users": points("grpo", "validation/reward"),
    }
    if (workdir / GRPO_ALONE).exists():
        rewards["sampled, from the bare model"] = points(GRPO_ALONE, "train/reward")
        rewards["validation users, from the bare model"] = points(GRPO_ALONE, "validation/reward")
    return [
        Curve("Reward during GRPO", "step", "mean reward", rewards),
        Curve("SFT loss", "step", "nats a token", {"train": points("sft", "train/loss")}),
    ]


def _cases(config: ConfigDict, dataset: Dataset, rows: list[dict]) -> list[Case]:
    """The first hit, the first lower hit and the first miss: chosen by outcome, not by looks."""
    graph, words, catalog = build_graph(dataset), wording(config.prompt.wording), dataset.catalog
    chosen = [
        next((row for row in rows if test(row["truth_rank"])), None)
        for test in (lambda rank: rank == 1, lambda rank: rank > 1, lambda rank: rank == 0)
    ]
    cases = []
    for row in filter(None, chosen):
        record = make_record(
            dataset,
            graph,
            row["user"],
            chains=config.prompt.chains,
            likes=config.prompt.likes,
            seed=config.seed,
            length=config.prompt.chain_length,
            selection=config.prompt.chain_selection,
            before_target_time=config.data.before_target_time,
        )
        cases.append(
            Case(
                user=str(row["user"]),
                demographics=record.demographics,
                likes=[words.title(catalog, item) for item in record.likes],
                chains=[_chain_line(chain, catalog) for chain in record.chains],
                candidates=shown_titles(record, catalog, words),
                truth=record.candidates.tolist().index(record.truth),
                reasoning=row["reasoning"],
                ranking=[place or "(not a candidate)" for place in row["ranking"]],
                hit_rank=row["truth_rank"],
            )
        )
    return cases[:CASES]


def _chain_line(chain, catalog) -> str:
    first, second, *_, last = (catalog.title[item] for item in (*chain.items, chain.items[-1]))
    links = "".join(
        f"user {link.peer} rated it {link.rating:g} and {catalog.title[link.item]} {link.next_rating:g}; "
        for link in chain.more
    )
    return (
        f"rated {first} {chain.r00:g}; user {chain.peer} rated it {chain.r10:g} "
        f"and {second} {chain.r11:g}; {links}rated {last} {chain.r01:g}"
    )


if __name__ == "__main__":
    command.run(main)
