"""Formats result tables as Markdown and as text for a terminal."""

from r2rec_jax.report.result_table import GROUPS, METRICS, Row, Table
from r2rec_jax.runtime.text_table import text_table

LEAD = "R2Rec's HR@1 minus this system's (95%)"
LEGEND = (
    "Intervals resample persons. † marks a published NDCG@3 that is impossible for the published HR@1 and "
    "HR@3. An invalid answer is a miss."
)


def markdown(table: Table) -> str:
    """The table as Markdown, group by group."""
    head = ["system"]
    for label in METRICS.values():
        head += [f"{label} (95%)", "paper"]
    lines = [f"# {_cell(table.title)}", "", f"Config {table.config_hash}. {LEGEND}", ""]
    lines += [_line([*head, "seeds", "users", "time per seed", LEAD]), "|---" * (len(head) + 4) + "|"]
    for group, label in GROUPS.items():
        rows = [row for row in table.rows if row.group == group]
        if rows:
            lines.append(_line([f"**{label}**", *[""] * (len(head) + 3)]))
        lines += [_line(_cells(row)) for row in rows]
    # Indented as a code block, so that Markdown does not interpret it.
    lines += ["", "    " + " ".join(table.note.split())] if table.note else []
    return "\n".join(lines) + "\n"


def text(table: Table) -> str:
    """The table as aligned text: HR@1 with its interval and the paper's HR@1, HR@3, NDCG@3."""
    head = ("", "HR@1", "95% interval", "paper", "HR@3", "NDCG@3", "")
    rows = []
    for row in sorted(table.rows, key=lambda row: list(GROUPS).index(row.group)):
        hr_1, hr_3, ndcg_3 = (_ours(row, metric) for metric in METRICS)
        rows.append(
            (row.name, hr_1, _interval(row, "hr@1"), _published(row, "hr@1"), hr_3, ndcg_3, row.missing)
        )
    return "\n".join([text_table(rows, head), *(["", table.note] if table.note else [])])


def decimal(value: float) -> str:
    """.404, as tables print it; 1.000."""
    return f"{value:.3f}".removeprefix("0")


def lead_text(row: Row) -> str:
    """+.067 (+.033 to +.100); "" without a lead."""
    return (
        "{} ({} to {})".format(*(f"{end:+.3f}".replace("0.", ".", 1) for end in row.lead)) if row.lead else ""
    )


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
            ours = f"{_ours(row, metric)} ({_interval(row, metric)})"
        paper = _published(row, metric)
        cells += [ours, paper + ("†" if paper and metric == "ndcg@3" and row.paper.misprint else "")]
    if not row.measured:
        return [*cells, "", "", "", ""]
    return [
        *cells,
        " ".join(map(str, row.seeds)),
        str(row.users),
        duration(row.wall_s) if row.wall_s else "",
        lead_text(row),
    ]


def _ours(row: Row, metric: str) -> str:
    return decimal(row.measured[metric]) if row.measured else ""


def _interval(row: Row, metric: str) -> str:
    return "-".join(map(decimal, row.ci95[metric])) if row.measured else ""


def _published(row: Row, metric: str) -> str:
    return decimal(row.paper.metrics()[metric]) if row.paper else ""


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text for a Markdown cell: one line, with markup characters escaped."""
    return "".join(f"\\{c}" if c in "\\|`*_<>[]" else c for c in " ".join(text.split()))
