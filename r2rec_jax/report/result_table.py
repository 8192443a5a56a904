"""Result tables over several seeds, the paper's number beside ours.

A seed is a whole run of its own: split, candidates, training, evaluation. A number is the mean over every
user of every seed, so seeds of as many users weigh the same; of a system that samples several times for a
user it takes the mean first. Our 95% interval is a percentile bootstrap over persons, each drawn with all of
its seeds, since a person may be evaluated with several. It says what other users would change, not what
other seeds would.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from r2rec_jax.metrics.ranking_metrics import per_user
from r2rec_jax.report.paper_numbers import Published

METRICS = {"hr@1": "HR@1", "hr@3": "HR@3", "ndcg@3": "NDCG@3"}
GROUPS = {"classical": "Without a language model", "llm": "With a language model", "ours": "R2Rec"}


@dataclasses.dataclass(frozen=True)
class SeedResult:
    """What one system did with one seed: users int[n], rank_RN int[R, n] (0: a miss), seconds of training and
    evaluation, and of policies the share of valid answers."""

    seed: int
    users: np.ndarray
    rank_RN: np.ndarray
    wall_s: float
    valid_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One system: its name in results, and the one for readers.

    `measured` and `ci95` have the metrics of METRICS; without results they and `seeds` are empty, and
    `missing` says what the cell needs. group: one of GROUPS. wall_s: seconds of a seed, the mean, 0 where not
    known. lead: by how much the finished policy's HR@1 is higher, and the interval of that (`lead_of`).
    """

    system: str
    name: str
    group: str
    paper: Published | None = None
    measured: dict[str, float] = dataclasses.field(default_factory=dict)
    ci95: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    hr_1_by_seed: tuple[float, ...] = ()
    users: int = 0
    runs: int = 0
    wall_s: float = 0.0
    valid_rate: float | None = None
    missing: str = ""
    lead: tuple[float, float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """title: what was measured on which data. config_hash: of the config that made it. note: what every row
    waits for, or ""."""

    title: str
    config_hash: str
    rows: list[Row]
    note: str = ""


def measured_row(
    system: str,
    name: str,
    group: str,
    results: Sequence[SeedResult],
    *,
    paper: Published | None = None,
    missing: str = "",
) -> Row:
    """The row of a system by the results of its seeds; without any it says what is `missing`."""
    if not results:
        return Row(system, name, group, paper, missing=missing)
    persons = np.concatenate([result.users for result in results])
    by_seed = [per_user(result.rank_RN) for result in results]
    values = {metric: np.concatenate([seed[metric] for seed in by_seed]) for metric in METRICS}
    rates = [result.valid_rate for result in results if result.valid_rate is not None]
    return Row(
        system,
        name=name,
        group=group,
        paper=paper,
        measured={metric: float(value.mean()) for metric, value in values.items()},
        ci95={metric: person_ci(value, persons) for metric, value in values.items()},
        seeds=tuple(result.seed for result in results),
        hr_1_by_seed=tuple(float(seed["hr@1"].mean()) for seed in by_seed),
        users=len(persons),
        runs=max(len(result.rank_RN) for result in results),
        wall_s=float(np.mean([result.wall_s for result in results])),
        valid_rate=float(np.mean(rates)) if rates else None,
    )


def lead_of(policy: Sequence[SeedResult], other: Sequence[SeedResult]) -> tuple[float, float, float] | None:
    """(difference, low, high) of HR@1, `policy` less `other`, paired over the users of the seeds that both
    have; None where they have none."""
    theirs = {result.seed: result for result in other}
    both = [(result, theirs[result.seed]) for result in policy if result.seed in theirs]
    if not both:
        return None
    hits = [[per_user(result.rank_RN)["hr@1"] for result in pair] for pair in both]
    difference = np.concatenate([ours - its for ours, its in hits])
    persons = np.concatenate([result.users for result, _ in both])
    return float(difference.mean()), *person_ci(difference, persons)


def person_ci(values: np.ndarray, persons: np.ndarray, samples: int = 2000) -> tuple[float, float]:
    """95% percentile interval of the mean of `values` float[n], drawing whole `persons` int[n]."""
    _, owner = np.unique(persons, return_inverse=True)
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(sums), size=len(sums)) for _ in range(samples))
    means = [sums[drawn].sum() / counts[drawn].sum() for drawn in draws]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def as_json(table: Table) -> dict:
    """The table for programs; a cell that is missing is null, and the row says why."""
    rows = [
        {
            "system": row.system,
            "name": row.name,
            "group": row.group,
            **{metric: row.measured.get(metric) for metric in METRICS},
            "ci95": {metric: list(row.ci95[metric]) for metric in row.ci95},
            "paper": row.paper.metrics() | {"misprint": row.paper.misprint} if row.paper else None,
            "seeds": list(row.seeds),
            "hr@1_by_seed": list(row.hr_1_by_seed),
            "users": row.users,
            "runs": row.runs,
            "wall_s": round(row.wall_s, 1),
            "valid_rate": row.valid_rate,
            "missing": row.missing,
            "lead": list(row.lead) if row.lead else None,
        }
        for row in table.rows
    ]
    return {"title": table.title, "config": table.config_hash, "note": table.note, "rows": rows}
