"""Evaluates: `python -m launch.eval --config=configs/eval.py --workdir=runs/ml1m/eval`.

Has each system rank every evaluation user's frozen candidates.
WORKDIR/users.jsonl gets a line as soon as a user's ranking is there, metrics.json is written when all are.
Interrupted, the same command goes on with the users that are left, and ends with the same numbers.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Set
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from tqdm import tqdm

from launch import command
from launch.inputs import require
from r2rec_jax.data import prepared
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.evaluate.intervals import bootstrap_ci
from r2rec_jax.evaluate.judge import Judged
from r2rec_jax.evaluate.measure import difference, measure, paired
from r2rec_jax.evaluate.modes import PolicyRanker
from r2rec_jax.evaluate.results import UserLines, write_metrics
from r2rec_jax.model.policy import load_policy
from r2rec_jax.pipeline.prompts import Prompt, RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rollout.engine import SamplingConfig
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.workdir import claim
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.scoring import Scored, Scorer
from r2rec_jax.train.state import restore_trainable

KINDS = ("policy",)
# Given the users wanted, (k, run, what was read) of at least those users k, as each ends.
Rank = Callable[[Set[int]], Iterator[tuple[int, int, Judged]]]
# Of all runs of all users: name in metrics.json -> in a line.
RATES = {"valid_rate": "valid", "truncation_rate": "truncated", "statements": "statements"}
RATES |= {"dropped_chains": "dropped_chains", "dropped_likes": "dropped_likes", "reward": "reward"}


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    print(table(evaluate(config, workdir, overwrite)))


def evaluate(config: ConfigDict, workdir: Path, overwrite: bool) -> dict[str, dict]:
    """Ranks with every system, writes the two files, and returns the metrics of each system."""
    sections = {name: _prompt_section(config, name) for name in config.systems}
    runs = {name: _runs(config, name, section) for name, section in sections.items()}
    adapted = {c.adapter: "sft" if name == "sft" else "grpo" for name, c in config.systems.items()}
    require(config, "model", "data", adapters={folder: stage for folder, stage in adapted.items() if folder})
    chat = Chat(config.model.folder)
    dataset = prepared.load(config.data.folder)
    users = dataset.split.users["evaluation"]
    if not len(users):
        raise UserError(f"{config.data.folder} has no evaluation users: set data.sizes.evaluation")
    rankers = _rankers(config, sections, runs, chat, dataset, users)
    scorer = Scorer(config, chat)
    claim(workdir, config, overwrite)

    lines = UserLines(workdir, dataset)
    with scorer:
        for name, rank in rankers.items():
            _rank(name, rank, runs[name], users, scorer, lines)
    lines.sort(list(rankers), users)
    systems, compared = _measured(config, dataset, users, lines)
    write_metrics(workdir, dataset, len(users), config.seed, systems, compared)
    return systems


def _rankers(config: ConfigDict, sections: dict, runs: dict, chat: Chat, dataset, users) -> dict[str, Rank]:
    """What ranks, by system; the model is loaded once for all."""
    mesh = make_mesh(**config.mesh)
    policy = load_policy(config, mesh, config.seed)
    optimizer = make_optimizer(config, steps=1)
    sampling = SamplingConfig(**config.rollout, slots=config.evaluate.batch_size)

    @functools.cache  # systems that ask alike share one, and what it has compiled
    def ranker(mode: str, runs: int, samples: int) -> PolicyRanker:
        return PolicyRanker(policy.model, chat, sampling, mesh, mode=mode, runs=runs, samples=samples)

    @functools.cache
    def prompts(section: FrozenConfigDict) -> list[Prompt]:
        before = config.data.before_target_time
        source = RankingPrompts(dataset, users, chat, section, config.seed, before_target_time=before)
        return [source[k] for k in range(len(source))]

    def rank_by_policy(name: str) -> Rank:
        c, section, adapter = config.systems[name], FrozenConfigDict(sections[name]), policy.trainable
        if c.adapter:
            adapter = restore_trainable(c.adapter, policy.trainable, optimizer, config.restore)
        variables, rank = {**policy.frozen, **adapter}, ranker(c.mode, runs[name], c.samples)
        return lambda wanted: rank(variables, prompts(section), section, seed=config.seed, wanted=wanted)

    rankers = {}
    for name, c in config.systems.items():
        match c.kind:
            case "policy":
                rankers[name] = rank_by_policy(name)
            case _:
                raise UserError(f"systems.{name}.kind {c.kind!r} is unknown: use one of {', '.join(KINDS)}")
    return rankers


def _rank(name: str, rank: Rank, runs: int, users: np.ndarray, scorer: Scorer, lines: UserLines) -> None:
    """Adds the lines of system `name` that are not there yet."""
    everything = itertools.product(range(len(users)), range(runs))
    missing = [(k, run) for k, run in everything if (name, run, users[k]) not in lines]
    if not missing:
        return
    total = len(users) * runs
    progress = tqdm(
        desc=f"eval {name}", total=total, initial=total - len(missing), unit="ranking", mininterval=1.0
    )
    start = time.monotonic()
    with progress:
        for k, run, judged in rank({k for k, _ in missing}):
            if (name, run, users[k]) not in lines:
                (paid,) = scorer.pay([judged])
                wall_s = round(time.monotonic() - start, 4)
                lines.append(name, run, users[k], judged.truth_rank, **_line(run, paid), wall_s=wall_s)
                progress.update()
            start = time.monotonic()


def _measured(config: ConfigDict, dataset: Dataset, users: np.ndarray, lines: UserLines) -> tuple[dict, dict]:
    """(metrics of each system, comparisons of every two), from their lines alone."""
    systems, rewards = {}, {}
    ranks = {name: lines.ranks(name, users) for name in config.systems}
    for name, rank_RN in ranks.items():
        runs = [lines.of(name, run, users) for run in range(len(rank_RN))]
        rewards[name] = np.mean([[line["reward"] for line in run] for run in runs], axis=0)
        systems[name] = measure(dataset, users, rank_RN, config.seed) | _rates(list(itertools.chain(*runs)))
        systems[name]["ci95"]["reward"] = list(bootstrap_ci(rewards[name], config.seed))
    compared = {
        f"{b} - {a}": paired(ranks[b], ranks[a], config.seed)
        | {"reward": difference(rewards[b], rewards[a], config.seed)}
        for a, b in itertools.combinations(ranks, 2)
    }
    return systems, compared


def _prompt_section(config: ConfigDict, name: str) -> ConfigDict:
    """The `prompt` section as system `name` has it."""
    section, own = config.prompt.copy_and_resolve_references(), config.systems[name].prompt
    if unknown := set(own) - set(section):
        raise UserError(f"systems.{name}.prompt.{min(unknown)} is unknown: use one of {', '.join(section)}")
    try:
        section.update(own)
    except (TypeError, ValueError) as error:
        raise UserError(f"systems.{name}.prompt: {error}") from error
    return section


def _runs(config: ConfigDict, name: str, section: ConfigDict) -> int:
    """How often a system ranks: once where every run would be the same."""
    c = config.systems[name]
    if config.rollout.temperature > 0 and (section.reasoning or c.mode != "likelihood"):
        return config.evaluate.runs
    if c.samples > 1:
        raise UserError(
            f"systems.{name}.samples={c.samples} would all be the same: use 1, or rollout.temperature above 0"
        )
    return 1


def _line(run: int, paid: Scored) -> dict:
    """What a line says besides ranks. A prompt is that of all runs, and told once."""
    judged, prompt = paid.judged, paid.judged.prompt
    places = [None if k is None else prompt.titles[k] for k in judged.ranking.places]
    truth = prompt.record.candidates.tolist().index(prompt.record.truth)
    return ({} if run else {"prompt": prompt.text}) | {
        "reasoning": judged.reasoning,
        "answer": judged.answer,
        "ranking": places,
        "truth": prompt.titles[truth],
        "valid": judged.ranking.valid,
        "truncated": judged.truncated,
        "statements": judged.statements,
        "dropped_chains": prompt.dropped_chains,
        "dropped_likes": prompt.dropped_likes,
        # Every system is compared on every user: here a reward that failed is none.
        "reward": 0.0 if paid.fault else paid.reward,
        "fault": paid.fault,
    }


def _rates(lines: list[dict]) -> dict[str, float]:
    means = {name: float(np.mean([line[field] for line in lines])) for name, field in RATES.items()}
    wall_s = sum(line["wall_s"] for line in lines)
    return means | {"failed_rewards": sum(bool(line["fault"]) for line in lines), "wall_s": round(wall_s, 3)}


def table(systems: dict[str, dict]) -> str:
    """The systems as aligned text, HR@1 with its 95% interval."""
    rows = [
        f"{'system':<14}{'HR@1':>6}  {'95% interval':<14}{'HR@3':>6}{'NDCG@3':>8}{'valid':>7}{'reward':>8}"
    ]
    for name, row in systems.items():
        low, high = row["ci95"]["hr@1"]
        extra = f"{row['valid_rate']:>7.3f}{row['reward']:>8.3f}" if "reward" in row else ""
        numbers = (
            f"{row['hr@1']:>6.3f}  {f'[{low:.3f}, {high:.3f}]':<14}{row['hr@3']:>6.3f}{row['ndcg@3']:>8.3f}"
        )
        rows.append(f"{name:<14}{numbers}{extra}")
    return "\n".join(rows)


if __name__ == "__main__":
    command.run(main)
