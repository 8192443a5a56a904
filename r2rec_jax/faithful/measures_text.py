"""Formats the faithfulness measures as text for a terminal."""

from r2rec_jax.faithful.edits import EDITS, LIKENESSES, NEUTRAL
from r2rec_jax.faithful.trials import OWN, REASONINGS
from r2rec_jax.runtime.text_table import text_table

EDIT_LABELS = {
    "cut": "a chain cut",
    "cut_elsewhere": "  another chain cut",
    "swapped": "its last item: of another genre",
    "swapped_alike": "  its last item: of the same genre",
    "flipped": "companion's rating of it flipped",
    "flipped_elsewhere": "  another companion's flipped",
    "own_flipped": "user's rating of it flipped",
    "own_flipped_elsewhere": "  user's rating of another flipped",
    "reordered": "chains in another order",
    "renamed": "the companion renamed",
    "like_cut": "a like cut",
}
REASONING_LABELS = {OWN: "its own", "none": "none", "half": "its first half"}
LEGEND = """\
Shift: change of the probability of the candidates similar to the chain's last item (same genre; rated by the
same people); below 0 it falls. Less twin: minus the effect of the control edit, the row below. Moved: total
probability moved between candidates. Less reordered, less renamed: minus the effect of another order of the
chains, or of another name for the companion, which carry no information. Brackets: 95% intervals over users,
differences paired."""


def text(systems: dict[str, dict]) -> str:
    """Three tables per system: effects of prompt edits, effects of the reasoning, checked statements."""
    parts = [LEGEND]
    for name, found in systems.items():
        parts += [
            _edits(name, found["edits"]),
            _reasonings(name, found["reasoning"]),
            _facts(name, found["facts"]),
        ]
    return "\n\n".join(part for part in parts if part)


def _edits(name: str, edits: dict[str, dict]) -> str:
    if not edits:
        return f"{name}: no prompt could be edited: no chain ends in an item that both rated high"
    head = [f"{name}: the prompt", "users", "shift, by genre", *(f"less twin, {kind}" for kind in LIKENESSES)]
    columns = [*head, "moved", *(f"less {edit}" for edit in NEUTRAL), "another first"]
    rows = []
    for edit in EDITS:
        if edit in edits:
            found = edits[edit]
            row = [EDIT_LABELS[edit], str(found["moved"]["users"]), _mean(found["shift"][LIKENESSES[0]])]
            row += [_difference(found.get("shift_less_twin", {}).get(kind)) for kind in LIKENESSES]
            row += [_plain(found["moved"])]
            row += [_difference(found.get("moved_less", {}).get(neutral)) for neutral in NEUTRAL]
            rows.append([*row, _plain(found["top_changed"])])
    return text_table(rows, columns)


def _reasonings(name: str, reasonings: dict[str, dict]) -> str:
    columns = (f"{name}: the reasoning", "HR@1", "less own", "same first", "Kendall's tau")
    rows = []
    for kind in (OWN, *REASONINGS):
        if found := reasonings.get(kind):
            row = [REASONING_LABELS.get(kind, kind), _mean(found["hr@1"], sign="")]
            row += [
                _difference(found.get("hr@1_less_own")),
                _plain(found.get("same_top")),
                _plain(found.get("tau")),
            ]
            rows.append(row)
    return text_table(rows, columns)


def _facts(name: str, facts: dict) -> str:
    if not facts["statements"]:
        return ""
    checked = facts["statements"] - facts["unchecked"]
    columns = (f"{name}: what it states", "number", "unsupported", "rate")
    rate = _mean(facts["unsupported_rate"], sign="")
    rows = [["statements that could be checked", str(checked), str(facts["unsupported"]), rate]]
    for kind, found in facts["facts"].items():
        rate = _mean(found["rate"], sign="")
        rows.append([f"  {kind}", str(found["facts"]), str(found["unsupported"]), rate])
    rows.append(["statements that could not", str(facts["unchecked"]), "", ""])
    return text_table(rows, columns)


def _mean(found: dict, sign: str = "+") -> str:
    return _with_interval(found["mean"], found["ci95"], sign)


def _difference(found: dict | None) -> str:
    return _with_interval(found["difference"], found["ci95"], "+") if found else ""


def _with_interval(value: float | None, interval: list[float] | None, sign: str) -> str:
    if value is None:
        return "-"
    return "{} [{}, {}]".format(*(_number(one, sign) for one in (value, *interval)))


def _plain(found: dict | None) -> str:
    return "" if found is None else "-" if found["mean"] is None else _number(found["mean"], "")


def _number(value: float, sign: str) -> str:
    """+.067, or .067 without a sign."""
    return f"{round(value, 3) + 0.0:{sign}.3f}".replace("0.", ".", 1)
