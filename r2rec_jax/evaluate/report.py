"""One self-contained HTML page about a run: a table, curves, and cases a person can read.

The page asks nothing of the network (its own content security policy forbids it), follows the
reader's light or dark setting, and fits a phone. Titles and model text are data: the template
escapes them all, and figures hold numbers only.
"""

import dataclasses
import math
from pathlib import Path

import jinja2

from r2rec_jax.evaluate.figures import COLOURS, line_figure
from r2rec_jax.evaluate.metrics import chance, ndcg_bounds

METRICS = ("hr@1", "hr@3", "ndcg@3")
_LABELS = {"hr@1": "HR@1", "hr@3": "HR@3", "ndcg@3": "NDCG@3"}
_ORDINALS = {1: "st", 2: "nd", 3: "rd"}


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line figure: series name -> [(x, y), ...]; a point that is not finite leaves a gap."""

    name: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float]]]


@dataclasses.dataclass(frozen=True)
class Case:
    """One user's recommendation.

    demographics: may be empty. likes: titles, oldest first. chains: one readable line each.
    candidates: titles in the order shown; `truth` is an index into them.
    ranking: the answer as parsed, best first. hit_rank: rank of the truth in it, 0 for a miss.
    """

    user: str
    demographics: dict[str, str]
    likes: list[str]
    chains: list[str]
    candidates: list[str]
    truth: int
    reasoning: str
    ranking: list[str]
    hit_rank: int


@dataclasses.dataclass(frozen=True)
class Report:
    """All that the page shows.

    facts: run header, label -> value (dataset, model, seeds, ...).
    systems: one dict a table row: "name", "hr@1", "hr@3", "ndcg@3"; optionally "valid_rate" (None
      where every answer is valid by construction), "ci95" {metric: [low, high]} and "ours": True
      for the policy's rows, the finished policy last. The chance row is added here.
    paper: the paper's rows (`paper.paper_rows`) or None.
    hr_by_position: system name -> HR@1 by the truth's place in the prompt, first place first.
    candidates: candidates a user, which sets the chance row.
    """

    title: str
    facts: dict[str, str]
    systems: list[dict]
    paper: list[dict] | None = None
    curves: list[Curve] = dataclasses.field(default_factory=list)
    hr_by_position: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    cases: list[Case] = dataclasses.field(default_factory=list)
    candidates: int = 20


def render(report: Report) -> str:
    """The page as one HTML string, equal for equal reports."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:.3f}"
    environment.filters["ordinal"] = _ordinal
    random_row = {"name": f"Chance, {report.candidates} candidates", "kind": "chance"}
    rows = [_row(random_row | chance(report.candidates), report.candidates)]
    rows += [_row(system, report.candidates) for system in report.systems]
    ours = [row for row in rows if row["kind"] == "ours"]
    others = [row for row in rows if row["kind"] == "baseline"]
    return environment.get_template("report.html.j2").render(
        report=report,
        labels=_LABELS,
        rows=rows,
        # The last of our rows is the finished policy: choosing our best row would flatter us.
        headline=ours[-1] if ours else None,
        rival=max(others, key=lambda row: row["hr@1"]["value"], default=None),
        has_valid_rate=any(row["valid_rate"] is not None for row in rows),
        paper=[_paper_row(row) for row in report.paper or []],
        figures=_figures(report),
        colours=[f"--series-{n}" for n in range(len(COLOURS))],
    )


def _row(system: dict, candidates: int) -> dict:
    row = {
        "name": system["name"],
        "kind": system.get("kind", "ours" if system.get("ours") else "baseline"),
        "valid_rate": system.get("valid_rate"),
    }
    for metric in METRICS:
        interval = (system.get("ci95") or {}).get(metric)
        row[metric] = {
            "value": system[metric],
            "interval": interval,
            # Positions on the cell's scale of 0 to 1, in percent.
            "bar": round(100 * system[metric], 2),
            "whisker": interval and [round(100 * end, 2) for end in interval],
            "chance": round(100 * chance(candidates)[metric], 2),
        }
    return row


def _paper_row(row: dict) -> dict:
    low, high = ndcg_bounds(row["hr@1"], row["hr@3"], 3)
    # Half a unit of the third decimal in each of the three numbers.
    possible = low - 0.0015 <= row["ndcg@3"] <= high + 0.0015
    return row | {"misprint": not possible, "ours": row["name"] == "R2Rec"}


def _figures(report: Report) -> list[dict]:
    figures = [
        {"name": c.name, "x": c.x_label, "y": c.y_label, "series": c.series, "note": ""}
        for c in report.curves
    ]
    if report.hr_by_position:
        places = {name: list(enumerate(rates, start=1)) for name, rates in report.hr_by_position.items()}
        figures.append(
            {
                "name": "HR@1 by place of the truth",
                "x": "place in the prompt",
                "y": "HR@1",
                "series": places,
                "note": "A flat line means that the ranker does not care where an item stands. "
                "The dashed line is chance.",
            }
        )
    for figure in figures:
        by_place = bool(figure["note"])
        figure["svg"] = line_figure(
            list(figure["series"].values()),
            level=1 / report.candidates if by_place else None,
            from_zero=by_place,
        )
        figure["last"] = {
            name: next((y for _, y in reversed(points) if math.isfinite(y)), None)
            for name, points in figure["series"].items()
        }
    return figures


def _ordinal(rank: int) -> str:
    suffix = "th" if rank % 100 in (11, 12, 13) else _ORDINALS.get(rank % 10, "th")
    return f"{rank}{suffix}"
