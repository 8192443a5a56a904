"""Formats a profile as text."""

from r2rec_jax.runtime.text_table import text_table

FEWEST = 0.01  # scopes below this share of the device's time are summed in one row
BUSY = 0.25  # relative spread of the step times above which the table warns


def render(profile: dict) -> str:
    """The text that launch.profile prints for a profile from `make_profile`."""
    return "\n\n".join(
        "\n".join(part) for part in (_head(profile), _phases(profile), _scopes(profile), _notes(profile))
    )


def _head(p: dict) -> list[str]:
    s, ceilings = p["shapes"], p["ceilings"]
    mesh = " ".join(f"{axis}={size}" for axis, size in p["mesh"].items())
    steps = p["steps"]
    spread = max(abs(x - steps["median_s"]) for x in steps["timed_s"]) / steps["median_s"]
    traced = sum(steps["traced_s"]) / len(steps["traced_s"])
    busy = spread > BUSY or p["utilisation"]["update"]["mfu_4n"] > 1
    return [
        *(
            ["OTHER LOAD ON THE MACHINE: step times vary or exceed the ceilings; do not use these times"]
            * busy
        ),
        f"{p['stage']} of {p['model']}, jax {p['jax']}",
        f"{p['devices']} x {p['device']}, mesh {mesh}",
        f"largest step: {s['B']} prompts of {s['P']} tokens, {s['G']} completions each of {s['R']}; "
        f"{p['padding']:.0%} of the positions is padding",
        f"step: {steps['median_s']:.4g} s ±{spread:.0%}, median of {len(steps['timed_s'])} after "
        f"{len(steps['warmup_s'])} of warm-up; {traced:.4g} s under the profiler",
        f"measured ceilings of a device: {_rate(ceilings['flops'], 'FLOP/s')} in {ceilings['dtype']} matrix "
        f"products, {_rate(ceilings['bandwidth'], 'B/s')} in a copy",
    ]


def _phases(p: dict) -> list[str]:
    idle = p["idle"]["by_phase"]
    rows = [
        (row["name"], f"{row['seconds']:.4f}", f"{row['share']:.1%}", f"{idle.get(row['name'], 0.0):.4f}")
        for row in p["phases"]
    ]
    return [text_table(rows, ("phase", "seconds", "share", "device idle, s"), align="lr")]


def _scopes(p: dict) -> list[str]:
    columns = ("program / scope", "seconds", "share", "GFLOP", "GB", "GFLOP/s", "GB/s", "bound", "of bound")
    rows = []
    for program in p["programs"]:
        if program["share"] < FEWEST:
            continue
        rows.append(_cost_row(program["name"], program))
        scopes = [scope for scope in p["scopes"] if scope["program"] == program["name"]]
        rows += [
            _cost_row(
                f"  {scope['scope']}"
                + ("" if scope["direction"] == "forward" else f" ({scope['direction']})"),
                scope,
            )
            for scope in scopes
            if scope["share"] >= FEWEST
        ]
        small = sum(scope["seconds"] for scope in scopes if scope["share"] < FEWEST)
        share = sum(scope["share"] for scope in scopes if scope["share"] < FEWEST)
        rows.append(("  smaller ones", f"{small:.4f}", f"{share:.1%}", *[""] * 6))
    return [text_table(rows, columns, align="lr")]


def _cost_row(name: str, cost: dict) -> tuple[str, ...]:
    seconds = cost["seconds"] or 1e-12
    uncounted = cost["uncounted_s"] > 0.5 * cost["seconds"]
    return (
        name,
        f"{cost['seconds']:.4f}",
        f"{cost['share']:.1%}",
        f"{cost['flops'] / 1e9:.3g}",
        f"{cost['bytes'] / 1e9:.3g}",
        f"{cost['flops'] / seconds / 1e9:.3g}",
        f"{cost['bytes'] / seconds / 1e9:.3g}",
        "uncounted" if uncounted else cost["bound"],
        "" if uncounted else f"{cost['at_best_s'] / seconds:.0%}",
    )


def _notes(p: dict) -> list[str]:
    u, memory, compiled, idle = p["utilisation"]["update"], p["memory"], p["compile"], p["idle"]
    lines = [
        f"update: {u['seconds']:.4g} s, {u['tokens_per_s']:,.0f} tokens/s without padding",
        f"  MFU {u['mfu_4n']:.1%} = {u['flops_4n'] / 1e9:.4g} GFLOP (4N per token: forward, and backward "
        "through frozen weights)",
        f"  MFU {u['mfu_6n']:.1%} = {u['flops_6n'] / 1e9:.4g} GFLOP (6N per token: all weights trained)",
        "  both: plus 3 x causal attention, with padding, without recomputation; divided by seconds x "
        "devices x the measured matrix-product ceiling",
    ]
    if "mfu_4n_of_data_sheet" in u:
        lines.append(
            f"  MFU {u['mfu_4n_of_data_sheet']:.1%} with 4N of the data sheet's peak, as training logs it"
        )
    if "rollout" in p["utilisation"]:
        r = p["utilisation"]["rollout"]
        lines.append(
            f"rollout: {r['seconds']:.4g} s, {r['tokens_per_s']:,.0f} tokens/s; at the ceilings prefill and "
            f"decode need {r['at_best_s']:.4g} s, {r['of_best']:.0%} of the measured time"
        )
    lines += [
        f"memory of a device: {memory['measured'] / 1e9:.4g} GB at the peak ({memory['source']}); "
        f"planned {memory['predicted'] / 1e9:.4g} GB",
        f"compiled: {compiled['programs']} programs in {compiled['seconds']:.1f} s"
        + (f"; {compiled['while_measured']} OF THEM WHILE MEASURED" if compiled["while_measured"] else ""),
        f"host: the device is idle {idle['seconds']:.4f} s per step ({idle['share']:.1%} of traced steps), "
        f"longest gap {idle['longest_s'] * 1e3:.3g} ms",
        "",
        "Seconds are per step. Those of scopes are sums over a device's threads or streams in traced steps.",
        "FLOPs count matrix products, bytes operands and results; cache hits can exceed the bound.",
    ]
    return lines


def _rate(value: float, unit: str) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G")):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value / 1e6:.4g} M{unit}"
