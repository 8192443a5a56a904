"""Ranks every evaluation user's frozen candidates with each system, and writes users.jsonl and
metrics.json.
"""

import itertools
import time
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from r2rec_jax.cli.required_inputs import require, stage_of
from r2rec_jax.data import prepared
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.metrics.intervals import bootstrap_ci
from r2rec_jax.metrics.ranking_metrics import summarise
from r2rec_jax.metrics.system_metrics import difference, measure, paired
from r2rec_jax.model.architecture import load_config
from r2rec_jax.pipeline.prompt_source import dropped_message
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rank.results import UserLines, write_metrics
from r2rec_jax.runs.build_rankers import Rank, make_rankers, prompt_section, sections_and_runs
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.text_table import text_table
from r2rec_jax.runtime.workdir import claim, require_same_inputs
from r2rec_jax.train.config import RewardConfig
from r2rec_jax.train.reward_runner import RewardedCompletion, RewardRunner

# Means over all runs of all users: name in metrics.json -> field of a line.
RATES = {"valid_rate": "valid", "truncation_rate": "truncated", "statements": "statements"}
RATES |= {"dropped_chains": "dropped_chains", "dropped_likes": "dropped_likes", "reward": "reward"}


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    systems = evaluate(config, workdir, overwrite)
    print(table(systems))
    for name, row in systems.items():
        buckets = prompt_section(config.prompt, config.systems[name], name).buckets
        if left_out := dropped_message(row["dropped_chains"], row["dropped_likes"], buckets):
            print(f"{name}: per prompt, on average, {left_out}")


def evaluate(config: ConfigDict, workdir: Path, overwrite: bool) -> dict[str, dict]:
    """Ranks with every system, writes the two files, and returns the metrics of each system."""
    sections, runs = sections_and_runs(config)
    adapters = {c.adapter: stage_of(c.adapter, name) for name, c in config.systems.items() if c.adapter}
    require(config, "model", "data", adapters=adapters)
    chat = Chat(config.model.folder, first_item=load_config(config.model.folder).vocab_size)
    dataset = prepared.load(config.data.folder)
    users = dataset.split.users["evaluation"]
    if not len(users):
        raise UserError(f"{config.data.folder} has no evaluation users: set data.sizes.evaluation")
    checksums: dict[str, int] = {}
    rankers = make_rankers(config, sections, runs, chat, dataset, users, checksums)
    prompt, reward = PromptConfig.read(config.prompt), RewardConfig.read(config.reward)
    scorer = RewardRunner(chat, prompt, reward, config.data.folder)
    claim(workdir, config, overwrite)
    require_same_inputs(workdir, checksums)

    lines = UserLines(workdir, dataset)
    with scorer:
        for name, rank in rankers.items():
            _rank(name, rank, runs[name], users, dataset, scorer, lines)
    lines.sort(list(rankers), users)
    systems, compared = _measured(list(config.systems), dataset, users, lines, config.seed)
    write_metrics(workdir, dataset, len(users), config.seed, systems, compared)
    return systems


def _rank(
    name: str,
    rank: Rank,
    runs: int,
    users: np.ndarray,
    dataset: Dataset,
    scorer: RewardRunner,
    lines: UserLines,
) -> None:
    """Ranks with system `name` where its lines are missing, and appends them."""
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
        for k, run, completion in rank({k for k, _ in missing}):
            if (name, run, users[k]) not in lines:
                (rewarded,) = scorer.score([completion])
                wall_s = round(time.monotonic() - start, 4)
                fields = _line(run, rewarded, dataset)
                lines.append(name, run, users[k], completion.truth_rank, **fields, wall_s=wall_s)
                progress.update()
            start = time.monotonic()


def _measured(
    names: list[str], dataset: Dataset, users: np.ndarray, lines: UserLines, seed: int
) -> tuple[dict, dict]:
    """(metrics of each system, comparisons of every pair), from the lines; `seed` of the bootstrap."""
    systems, rewards = {}, {}
    ranks = {name: lines.ranks(name, users) for name in names}
    for name, rank_RN in ranks.items():
        runs = [lines.of(name, run, users) for run in range(len(rank_RN))]
        rewards[name] = np.mean([[line["reward"] for line in run] for run in runs], axis=0)
        systems[name] = measure(dataset, users, rank_RN, seed) | _rates(list(itertools.chain(*runs)))
        lenient_RN = np.array([[line["lenient_rank"] for line in run] for run in runs])
        systems[name]["lenient"] = summarise(lenient_RN)
        systems[name]["ci95"]["reward"] = list(bootstrap_ci(rewards[name], seed))
    compared = {
        f"{b} - {a}": paired(ranks[b], ranks[a], seed) | {"reward": difference(rewards[b], rewards[a], seed)}
        for a, b in itertools.combinations(ranks, 2)
    }
    return systems, compared


def _line(run: int, rewarded: RewardedCompletion, dataset: Dataset) -> dict:
    """The fields of a line besides rank and user. All runs share the prompt, so only run 0 has it."""
    completion, prompt = rewarded.completion, rewarded.completion.prompt
    places = [None if k is None else prompt.titles[k] for k in completion.ranking.places]
    items = prompt.record.candidates.tolist()
    item_ids = [dataset.catalog.item_ids[item] for item in items]
    truth = items.index(prompt.record.truth)
    return ({} if run else {"prompt": prompt.text}) | {
        "reasoning": completion.reasoning,
        "answer": completion.answer,
        "ranking": places,
        "ranking_ids": [None if k is None else item_ids[k] for k in completion.ranking.places],
        "truth": prompt.titles[truth],
        "truth_id": item_ids[truth],
        "lenient_rank": completion.lenient_rank,
        "valid": completion.ranking.valid,
        "truncated": completion.truncated,
        "statements": completion.statements,
        "dropped_chains": prompt.dropped_chains,
        "dropped_likes": prompt.dropped_likes,
        # Systems are compared on every user, so a failed reward counts as 0.
        "reward": 0.0 if rewarded.fault else rewarded.reward,
        "fault": rewarded.fault,
    }


def _rates(lines: list[dict]) -> dict[str, float]:
    means = {name: float(np.mean([line[field] for line in lines])) for name, field in RATES.items()}
    wall_s = sum(line["wall_s"] for line in lines)
    return means | {"failed_rewards": sum(bool(line["fault"]) for line in lines), "wall_s": round(wall_s, 3)}


def table(systems: dict[str, dict]) -> str:
    """The systems as an aligned table, HR@1 with its 95% interval.

    Systems that answer in text also have the lenient HR@1, of all that could be parsed from invalid answers.
    """
    head = ("system", "HR@1", "95% interval", "HR@3", "NDCG@3", "valid", "lenient HR@1", "reward")
    rows = []
    for name, row in systems.items():
        low, high = row["ci95"]["hr@1"]
        hr_1, hr_3, ndcg_3 = (f"{row[metric]:.3f}" for metric in ("hr@1", "hr@3", "ndcg@3"))
        of_text = [""] * 3
        if "reward" in row:
            of_text = [f"{row['valid_rate']:.3f}", f"{row['lenient']['hr@1']:.3f}", f"{row['reward']:.3f}"]
        rows.append((name, hr_1, f"[{low:.3f}, {high:.3f}]", hr_3, ndcg_3, *of_text))
    return text_table(rows, head, align="lr")
