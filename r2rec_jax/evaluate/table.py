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

from r2rec_jax.evaluate.metrics import per_user
from r2rec_jax.evaluate.paper import Published

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
    `missing` says what the cell needs. group: one of GROUPS. wall_s: seconds of a seed, the mean.
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
        }
        for row in table.rows
    ]
    return {"title": table.title, "config": table.config_hash, "note": table.note, "rows": rows}


def markdown(table: Table) -> str:
    """The table for readers, a group after another."""
    head = ["system"]
    for label in METRICS.values():
        head += [f"{label} (95%)", "paper"]
    lines = [f"# {_cell(table.title)}", "", f"Config {table.config_hash}. {LEGEND}", ""]
    lines += [_line([*head, "seeds", "users", "time a seed"]), "|---" * (len(head) + 3) + "|"]
    for group, label in GROUPS.items():
        rows = [row for row in table.rows if row.group == group]
        if rows:
            lines.append(_line([f"**{label}**", *[""] * (len(head) + 2)]))
        lines += [_line(_cells(row)) for row in rows]
    # Indented, it is shown as it is, whatever it holds.
    lines += ["", "    " + " ".join(table.note.split())] if table.note else []
    return "\n".join(lines) + "\n"


def text(table: Table) -> str:
    """The table for a terminal, aligned: HR@1 with its interval and the paper's, HR@3, NDCG@3."""
    width = max(len(row.name) for row in table.rows)
    lines = [f"{'':{width}}  HR@1  95% interval  paper  HR@3  NDCG@3"]
    for row in sorted(table.rows, key=lambda row: list(GROUPS).index(row.group)):
        paper = decimal(row.paper.hr_1) if row.paper else ""
        said = f"{'':18}  {paper:5}  {row.missing}"
        if row.measured:
            interval = "-".join(map(decimal, row.ci95["hr@1"]))
            hr_1, hr_3, ndcg_3 = (decimal(row.measured[metric]) for metric in METRICS)
            said = f"{hr_1}  {interval:12}  {paper:5}  {hr_3}  {ndcg_3}"
        lines.append(f"{row.name:{width}}  {said}".rstrip())
    return "\n".join([*lines, *(["", table.note] if table.note else [])])


LEGEND = (
    "An interval resamples persons. † marks a published NDCG@3 that no ranking can have beside its HR@1 and "
    "HR@3. An invalid answer is a miss."
)


def decimal(value: float) -> str:
    """.404, as tables print it; 1.000."""
    return f"{value:.3f}".removeprefix("0")


def duration(seconds: float) -> str:
    """2 h 05 min, 3 min 12 s, or 8 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


def _cells(row: Row) -> list[str]:
    cells = [_cell(row.name)]
    for k, metric in enumerate(METRICS):
        ours = _cell(row.missing) if k == 0 else ""
        if row.measured:
            low, high = row.ci95[metric]
            ours = f"{decimal(row.measured[metric])} ({decimal(low)}-{decimal(high)})"
        paper = decimal(row.paper.metrics()[metric]) if row.paper else ""
        cells += [ours, paper + ("†" if paper and metric == "ndcg@3" and row.paper.misprint else "")]
    if not row.measured:
        return [*cells, "", "", ""]
    return [*cells, " ".join(map(str, row.seeds)), str(row.users), duration(row.wall_s)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text that stays in its cell: one line, with what Markdown would read as markup escaped."""
    return "".join(f"\\{c}" if c in "\\|`*_<>[]" else c for c in " ".join(text.split()))
