"""Renders one self-contained HTML page: a table, curves, and readable cases.

The page makes no network requests (its content security policy forbids them), follows the reader's light or
dark setting, and fits a phone. The template escapes all titles and model text, and figures contain only
numbers.
"""

import dataclasses
import math
from pathlib import Path

import jinja2
from markupsafe import Markup

from r2rec_jax.metrics.ranking_metrics import chance
from r2rec_jax.report.cases import Case
from r2rec_jax.report.figures import COLOURS, interval_figure, line_figure
from r2rec_jax.report.result_table import GROUPS, METRICS, Row, Table
from r2rec_jax.report.result_text import decimal, duration, lead_text
from r2rec_jax.report.system_names import policy_in

_ORDINALS = {1: "st", 2: "nd", 3: "rd"}


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line figure: series name -> [(x, y), ...]; a point that is not finite leaves a gap.

    level: y of a dashed line, or None. ends: whether the legend gives the last value of a line.
    """

    name: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float]]]
    note: str = ""
    level: float | None = None
    ends: bool = True


@dataclasses.dataclass(frozen=True)
class Groups:
    """HR@1 of groups of users: series name -> rows of `system_metrics.by_quartile`, all with the same
    groups."""

    name: str
    x_label: str
    series: dict[str, list[dict]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """The content of the page.

    facts: header, label -> value (dataset, model, seeds, ...). detail: names the seed of figures and cases,
    "" if there is only one. candidates: candidates per user, which determine chance.
    """

    facts: dict[str, str]
    table: Table
    curves: list[Curve] = dataclasses.field(default_factory=list)
    groups: list[Groups] = dataclasses.field(default_factory=list)
    cases: list[Case] = dataclasses.field(default_factory=list)
    detail: str = ""
    candidates: int = 20


def render(report: Report) -> str:
    """The page as one HTML string; equal reports give equal strings."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": decimal, "duration": duration, "ordinal": _ordinal, "lead": lead_text}
    rows = report.table.rows
    policy = policy_in(row.system for row in rows)
    others = [row for row in rows if row.group != "ours" and row.measured]
    return environment.get_template("report.html.j2").render(
        report=report,
        labels=METRICS,
        sections={
            label: [(row, _cells(row, report.candidates)) for row in rows if row.group == group]
            for group, label in GROUPS.items()
            if any(row.group == group for row in rows)
        },
        chance=chance(report.candidates),
        # Always the final policy; the best of our rows would be a biased choice.
        headline=next((row for row in rows if row.system == policy), None),
        rival=max(others, key=lambda row: row.measured["hr@1"], default=None),
        leads=any(row.lead for row in rows),
        paper=any(row.paper for row in rows),
        misprint=any(row.paper.misprint for row in rows if row.paper),
        figures=[_curve(curve) for curve in report.curves]
        + [_groups(groups, 1 / report.candidates) for groups in report.groups],
        colours=[f"--series-{n}" for n in range(len(COLOURS))],
    )


def _cells(row: Row, candidates: int) -> dict[str, dict]:
    """Positions on each metric's scale from 0 to 1, in percent; None for a missing value."""

    def percent(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 2)

    return {
        metric: {
            "bar": percent(row.measured.get(metric)),
            "whisker": [percent(end) for end in row.ci95[metric]] if metric in row.ci95 else None,
            "paper": percent(row.paper.metrics()[metric]) if row.paper else None,
            "chance": percent(chance(candidates)[metric]),
        }
        for metric in METRICS
    }


def _curve(curve: Curve) -> dict:
    last = {
        name: next((y for _, y in reversed(points) if math.isfinite(y)), None)
        for name, points in curve.series.items()
    }
    svg = line_figure(list(curve.series.values()), level=curve.level, from_zero=curve.level is not None)
    ends = {name: f"ends at {y:.3f}" for name, y in last.items() if y is not None and curve.ends}
    return _figure(curve.name, curve.x_label, curve.y_label, curve.note, {n: ends.get(n) for n in last}, svg)


def _groups(groups: Groups, level: float) -> dict:
    first = next(iter(groups.series.values()))
    names = [f"{row['from']}" if row["from"] == row["to"] else f"{row['from']}–{row['to']}" for row in first]
    means = [[(row["hr@1"], *row["ci95"]) for row in rows] for rows in groups.series.values()]
    users = f"Users: {', '.join(str(row['users']) for row in first)}."
    svg = interval_figure(names, means, level=level)
    note = f"{groups.note} {users}".strip()
    return _figure(groups.name, groups.x_label, "HR@1", note, dict.fromkeys(groups.series), svg)


def _figure(name: str, x: str, y: str, note: str, legend: dict[str, str | None], svg: Markup) -> dict:
    return {"name": name, "x": x, "y": y, "note": note, "legend": legend, "svg": svg}


def _ordinal(rank: int) -> str:
    suffix = "th" if rank % 100 in (11, 12, 13) else _ORDINALS.get(rank % 10, "th")
    return f"{rank}{suffix}"
