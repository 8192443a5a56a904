"""Evaluates: `python -m launch.eval --config=configs/eval.py --workdir=runs/ml1m/eval`.

Restores each policy by orbax and ranks every evaluation user's frozen candidates. Writes metrics.json
(one object a system) and users.jsonl.
"""

import itertools
import json
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from launch import command
from launch.inputs import require
from r2rec_jax.data import prepared
from r2rec_jax.evaluate.intervals import bootstrap_ci, ci95, paired_ci
from r2rec_jax.evaluate.judge import Judged
from r2rec_jax.evaluate.metrics import hr_by_position, summarise
from r2rec_jax.evaluate.policy import rank_users, summary
from r2rec_jax.model.policy import load_policy
from r2rec_jax.pipeline.prompts import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.rollout.engine import Engine, SamplingConfig
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.workdir import claim
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.scoring import Scorer
from r2rec_jax.train.state import restore_trainable

METRICS, USERS = "metrics.json", "users.jsonl"


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    print(table(evaluate(config, workdir, overwrite)))


def evaluate(config: ConfigDict, workdir: Path, overwrite: bool) -> dict[str, dict]:
    """Ranks with every system, writes the two files, and returns the metrics of each system."""
    adapted = {
        folder: "sft" if name == "sft" else "grpo" for name, folder in config.systems.items() if folder
    }
    require(config, "model", "data", adapters=adapted)
    chat = Chat(config.model.folder)
    dataset = prepared.load(config.data.folder)
    mesh = make_mesh(**config.mesh)
    policy = load_policy(config, mesh, config.seed)
    optimizer = make_optimizer(config, steps=1)
    adapters = {
        name: restore_trainable(folder, policy.trainable, optimizer, config.restore)
        if folder
        else policy.trainable
        for name, folder in config.systems.items()
    }
    scorer = Scorer(config, chat)
    sampling = SamplingConfig(**config.rollout, slots=config.evaluate.batch_size)
    engine = Engine(policy.model, chat.end, sampling, mesh, chat.text)
    claim(workdir, config, overwrite)

    users = dataset.split.users["evaluation"]
    candidates, truth = dataset.split.candidates[users], dataset.split.truth[users]
    results, rewards, lines = {}, {}, []
    before = config.data.before_target_time
    prompts = RankingPrompts(dataset, users, chat, config.prompt, config.seed, before_target_time=before)
    ranks = {}
    with scorer:
        for name, adapter in adapters.items():
            ranking = rank_users(engine, {**policy.frozen, **adapter}, prompts, seed=config.seed)
            progress = tqdm(ranking, desc=f"eval {name}", total=len(users), unit="user", mininterval=1.0)
            judged = [one for _, one in sorted(progress, key=lambda pair: pair[0])]
            ranks[name] = np.array([one.truth_rank for one in judged], np.int32)
            scored = scorer.pay(judged)
            # Every system is compared on every user: here a reward that failed is none.
            rewards[name] = np.array([0.0 if one.fault else one.reward for one in scored])
            results[name] = _metrics(ranks[name], config.seed, candidates, truth) | summary(judged)
            results[name]["failed_rewards"] = sum(bool(one.fault) for one in scored)
            results[name]["reward"] = float(rewards[name].mean())
            results[name]["ci95"]["reward"] = list(bootstrap_ci(rewards[name], config.seed))
            lines += [_line(name, one, paid) for one, paid in zip(judged, rewards[name], strict=True)]

    names = list(adapters)
    differences = {
        f"{later} - {earlier}": {
            "reward": list(paired_ci(rewards[later], rewards[earlier], config.seed)),
            "hr@1": list(paired_ci(ranks[later] == 1, ranks[earlier] == 1, config.seed)),
        }
        for earlier, later in itertools.combinations(names, 2)
    }
    report = {
        "users": len(users),
        "candidates_sha256": prepared.candidates_hash(dataset.split),
        "systems": results,
        "paired_ci95": differences,
    }
    write_atomic(workdir / USERS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_atomic(workdir / METRICS, json.dumps(report, indent=2) + "\n")
    return results


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


def _metrics(ranks: np.ndarray, seed: int, candidates: np.ndarray, truth: np.ndarray) -> dict:
    return summarise(ranks) | {
        "users": len(ranks),
        "ci95": ci95(ranks, seed),
        "hr@1_by_position": hr_by_position(ranks == 1, candidates, truth),
    }


def _line(system: str, judged: Judged, paid: float) -> dict:
    prompt = judged.prompt
    places = [None if k is None else prompt.titles[k] for k in judged.ranking.places]
    truth = prompt.record.candidates.tolist().index(prompt.record.truth)
    return {
        "system": system,
        "user": prompt.record.user,
        "prompt": prompt.text,
        "reasoning": judged.reasoning,
        "answer": judged.answer,
        "ranking": places,
        "truth": prompt.titles[truth],
        "truth_rank": judged.truth_rank,
        "valid": judged.ranking.valid,
        "reward": round(float(paid), 4),
    }


if __name__ == "__main__":
    command.run(main)
