"""Compares two profiles: times by phase and scope, and counts of the compiled programs."""

from collections import Counter

from r2rec_jax.runtime.text_table import text_table

ALIKE = (
    "stage",
    "model",
    "device",
    "devices",
    "mesh",
    "jax",
    "shapes",
)  # fields that should be equal in comparable profiles
FEWEST, MOST = 0.005, 20  # smallest reported difference, as a share of A's step; maximum number of rows
UNEQUAL = 1.25  # ratio of the ceilings of one device above which other load disturbed a measurement
_CEILINGS = ("flops", "bandwidth")
_DIFFERENCE = ("A, s", "B, s", "B - A")


def compare(a: dict, b: dict) -> str:
    """The text that launch.compare prints for two profiles from `make_profile`."""
    parts = [_head(a, b), _phases(a, b), _scopes(a, b), _programs(a, b)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _head(a: dict, b: dict) -> list[str]:
    lines = [f"{name} differs: {a[name]} in A, {b[name]} in B" for name in ALIKE if a[name] != b[name]]
    if a["device"] == b["device"] and any(_differ(a["ceilings"][x], b["ceilings"][x]) for x in _CEILINGS):
        lines.append("the ceilings differ: other load disturbed one of the runs, so times are not comparable")
    u, v = a["utilisation"]["update"], b["utilisation"]["update"]
    rows = [
        _row("step, s", a["steps"]["median_s"], b["steps"]["median_s"]),
        _row("update, tokens/s", u["tokens_per_s"], v["tokens_per_s"]),
        _row("update, MFU with 4N, %", 100 * u["mfu_4n"], 100 * v["mfu_4n"]),
        _row("device idle, s", a["idle"]["seconds"], b["idle"]["seconds"]),
        _row("memory at the peak, GB", a["memory"]["measured"] / 1e9, b["memory"]["measured"] / 1e9),
        _row("programs compiled", a["compile"]["programs"], b["compile"]["programs"]),
        _row("compile time, s", a["compile"]["seconds"], b["compile"]["seconds"]),
        _row("ceiling, GFLOP/s", a["ceilings"]["flops"] / 1e9, b["ceilings"]["flops"] / 1e9),
        _row("ceiling, GB/s", a["ceilings"]["bandwidth"] / 1e9, b["ceilings"]["bandwidth"] / 1e9),
    ]
    return [*lines, text_table(rows, ("", "A", "B", "B / A"), align="lr")]


def _phases(a: dict, b: dict) -> list[str]:
    before, after = ({phase["name"]: phase["seconds"] for phase in profile["phases"]} for profile in (a, b))
    rows = [_difference(name, before, after) for name in before | after]
    return [text_table(rows, ("phase", *_DIFFERENCE), align="lr")]


def _scopes(a: dict, b: dict) -> list[str]:
    """Differences by scope, the largest first."""

    def seconds(profile: dict) -> Counter:
        totals = Counter()
        for scope in profile["scopes"]:
            direction = "" if scope["direction"] == "forward" else f" ({scope['direction']})"
            totals[f"{scope['program']}: {scope['scope']}{direction}"] += scope["seconds"]
        return totals

    before, after = seconds(a), seconds(b)
    least = FEWEST * a["steps"]["median_s"]
    changed = [name for name in before | after if abs(after[name] - before[name]) >= least]
    changed.sort(key=lambda name: -abs(after[name] - before[name]))
    if not changed:
        return [f"no scope differs by {FEWEST:.1%} of A's step"]
    rows = [_difference(name, before, after) for name in changed[:MOST]]
    columns = ("scope, the largest difference first", *_DIFFERENCE)
    left = len(changed) - MOST
    rest = [f"and {left} more"] if left > 0 else []
    return [text_table(rows, columns, align="lr"), *rest]


def _programs(a: dict, b: dict) -> list[str]:
    """Differences of the HLO counts. Programs of one name (one function, several shapes) are summed."""

    def counts(profile: dict) -> dict[str, Counter]:
        totals: dict[str, Counter] = {}
        for program in profile["programs"]:
            totals.setdefault(program["name"], Counter()).update(program["hlo"])
        return totals

    before, after = counts(a), counts(b)
    rows = []
    for name in before | after:
        if name not in before or name not in after:
            rows.append((f"{name}: only in {'A' if name in before else 'B'}", "", "", ""))
            continue
        for what in before[name] | after[name]:
            if (x := before[name][what]) != (y := after[name][what]):
                rows.append((f"{name}: {what}", f"{x:,.0f}", f"{y:,.0f}", f"{y - x:+,.0f}"))
    if not rows:
        return ["the HLO counts of all programs are equal"]
    return [text_table(rows, ("HLO", "A", "B", "B - A"), align="lr")]


def _differ(a: float, b: float) -> bool:
    return max(a, b) > UNEQUAL * min(a, b)


def _row(name: str, a: float, b: float) -> tuple[str, ...]:
    return name, f"{a:.4g}", f"{b:.4g}", f"{b / a:.2f}x" if a else ""


def _difference(name: str, a: dict, b: dict) -> tuple[str, ...]:
    x, y = a.get(name, 0.0), b.get(name, 0.0)
    return name, f"{x:.4f}", f"{y:.4f}", f"{y - x:+.4f}"
