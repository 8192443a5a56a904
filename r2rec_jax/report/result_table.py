"""Result tables over several seeds, with the paper's numbers beside ours.

Each seed is a complete run with its own split, candidates, training and evaluation. A number is the mean over
all users of all seeds; several runs for one user are averaged first. The 95% interval is a percentile
bootstrap over persons. A person is resampled with all of its seeds, because several seeds may evaluate the
same person. The interval covers the choice of users, not of seeds.
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
    """The result of one system with one seed.

    users: int[n]. rank_RN: int[R, n], 0 for a miss. wall_s: seconds of training and evaluation. valid_rate:
    share of valid answers, for language models.
    """

    seed: int
    users: np.ndarray
    rank_RN: np.ndarray
    wall_s: float
    valid_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One system. system: its name in result files. name: its label for readers.

    measured, ci95: by metric of METRICS; without results they and `seeds` are empty, and `missing` states
    what the row needs. group: one of GROUPS. wall_s: mean seconds per seed, 0 if unknown. lead: HR@1 of the
    final policy minus this system's, with its interval (`lead_of`).
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
    """A result table.

    title: the measurement and its data. config_hash: of the config that made it. note: an input that all rows
    lack, or "".
    """

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
    """The row of a system from the results of its seeds; without results it has `missing`."""
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
    """(difference, low, high) of HR@1, `policy` minus `other`, paired by user over their common seeds.

    None without a common seed.
    """
    theirs = {result.seed: result for result in other}
    both = [(result, theirs[result.seed]) for result in policy if result.seed in theirs]
    if not both:
        return None
    hits = [[per_user(result.rank_RN)["hr@1"] for result in pair] for pair in both]
    difference = np.concatenate([ours - its for ours, its in hits])
    persons = np.concatenate([result.users for result, _ in both])
    return float(difference.mean()), *person_ci(difference, persons)


def person_ci(values: np.ndarray, persons: np.ndarray, samples: int = 2000) -> tuple[float, float]:
    """95% percentile interval of the mean of `values` float[n], resampling `persons` int[n]."""
    _, owner = np.unique(persons, return_inverse=True)
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(sums), size=len(sums)) for _ in range(samples))
    means = [sums[drawn].sum() / counts[drawn].sum() for drawn in draws]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def as_json(table: Table) -> dict:
    """The table as a JSON-able dict; a missing cell is null, and the row's "missing" gives the reason."""
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
