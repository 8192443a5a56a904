"""Makes ranking.json: what ranx says of two systems' ranked lists.

Run it in an environment of its own, from this folder (ranx needs numba; Python 3.11 has wheels of all):

    python3 -m venv ranx
    ranx/bin/pip install ranx==0.3.21
    ranx/bin/python make_ranking_golden.py

The file holds, for 60 users with 20 candidates and one true one each:
  truth      the true candidate of each user
  listed     of each system, each user's ranked list; one in four leaves the truth out
  metrics    of each system, {ranx's name: mean over users}
  p          {metric: of ranx's Fisher randomisation test of the two}
"""

import json

import numpy as np
from ranx import Qrels, Run, compare, evaluate

METRICS = ["hit_rate@1", "hit_rate@3", "hit_rate@5", "ndcg@3", "ndcg@5", "mrr"]


def lists(rng: np.random.Generator, truth: np.ndarray, skill: float) -> list[list[int]]:
    found = []
    for true in truth:
        score = rng.random(20)
        score[true] += skill
        order = np.argsort(-score)
        found.append([int(k) for k in order if k != true or rng.random() > 0.25])
    return found


def main() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(20, size=60)
    listed = [lists(rng, truth, skill) for skill in (0.8, 0.5)]
    qrels = Qrels({f"u{n}": {f"c{true}": 1} for n, true in enumerate(truth)})
    runs = [
        Run({f"u{n}": {f"c{k}": -place for place, k in enumerate(one)} for n, one in enumerate(system)})
        for system in listed
    ]
    for run, name in zip(runs, ("a", "b"), strict=True):
        run.name = name
    report = compare(qrels, runs, ["hit_rate@1", "ndcg@3"], stat_test="fisher", n_permutations=200_000)
    p = report.comparisons["a", "b"]
    golden = {
        "truth": truth.tolist(),
        "listed": listed,
        "metrics": [{m: float(v) for m, v in evaluate(qrels, run, METRICS).items()} for run in runs],
        "p": {name: float(p[name]["p_value"]) for name in ("hit_rate@1", "ndcg@3")},
    }
    with open("ranking.json", "w", encoding="utf-8") as file:
        json.dump(golden, file)
        file.write("\n")


if __name__ == "__main__":
    main()
