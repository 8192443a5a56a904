"""A profile as text."""

from r2rec_jax.runtime.text_table import text_table

FEWEST = 0.01  # share of the device's time below which a scope is summed with its like
BUSY = 0.25  # spread of the steps above which the table warns


def render(profile: dict) -> str:
    """The page that launch.profile prints of a profile from `make_profile`."""
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
        *(["THE MACHINE WAS NOT QUIET: steps differ or exceed the ceilings; take no time from here"] * busy),
        f"{p['stage']} of {p['model']}, jax {p['jax']}",
        f"{p['devices']} x {p['device']}, mesh {mesh}",
        f"largest step: {s['B']} prompts of {s['P']} tokens, {s['G']} completions each of {s['R']}; "
        f"{p['padding']:.0%} of all is padding",
        f"step: {steps['median_s']:.4g} s ±{spread:.0%}, median of {len(steps['timed_s'])} after "
        f"{len(steps['warmup_s'])} of warm-up; {traced:.4g} s under the profiler",
        f"ceilings measured here, a device: {_rate(ceilings['flops'], 'FLOP/s')} in products of "
        f"{ceilings['dtype']}, {_rate(ceilings['bandwidth'], 'B/s')} in a copy",
    ]


def _phases(p: dict) -> list[str]:
    idle = p["idle"]["by_phase"]
    rows = [
        (one["name"], f"{one['seconds']:.4f}", f"{one['share']:.1%}", f"{idle.get(one['name'], 0.0):.4f}")
        for one in p["phases"]
    ]
    return [text_table(rows, ("phase", "seconds", "share", "device idle, s"), align="lr")]


def _scopes(p: dict) -> list[str]:
    columns = ("program / scope", "seconds", "share", "GFLOP", "GB", "GFLOP/s", "GB/s", "bound", "of bound")
    rows = []
    for program in p["programs"]:
        if program["share"] < FEWEST:
            continue
        rows.append(_priced(program["name"], program))
        scopes = [one for one in p["scopes"] if one["program"] == program["name"]]
        rows += [
            _priced(
                f"  {one['scope']}" + ("" if one["direction"] == "forward" else f" ({one['direction']})"), one
            )
            for one in scopes
            if one["share"] >= FEWEST
        ]
        small = sum(one["seconds"] for one in scopes if one["share"] < FEWEST)
        share = sum(one["share"] for one in scopes if one["share"] < FEWEST)
        rows.append(("  smaller ones", f"{small:.4f}", f"{share:.1%}", *[""] * 6))
    return [text_table(rows, columns, align="lr")]


def _priced(name: str, one: dict) -> tuple[str, ...]:
    seconds = one["seconds"] or 1e-12
    uncounted = one["uncounted_s"] > 0.5 * one["seconds"]
    return (
        name,
        f"{one['seconds']:.4f}",
        f"{one['share']:.1%}",
        f"{one['flops'] / 1e9:.3g}",
        f"{one['bytes'] / 1e9:.3g}",
        f"{one['flops'] / seconds / 1e9:.3g}",
        f"{one['bytes'] / seconds / 1e9:.3g}",
        "uncounted" if uncounted else one["bound"],
        "" if uncounted else f"{one['at_best_s'] / seconds:.0%}",
    )


def _notes(p: dict) -> list[str]:
    u, memory, compiled, idle = p["utilisation"]["update"], p["memory"], p["compile"], p["idle"]
    lines = [
        f"update: {u['seconds']:.4g} s, {u['tokens_per_s']:,.0f} tokens/s without padding",
        f"  MFU {u['mfu_4n']:.1%} = {u['flops_4n'] / 1e9:.4g} GFLOP (4N a token: forward, and backward "
        "through frozen weights)",
        f"  MFU {u['mfu_6n']:.1%} = {u['flops_6n'] / 1e9:.4g} GFLOP (6N a token: as if all weights trained)",
        "  both: + 3 x causal attention, padding counted, recomputation not; over seconds x devices x the "
        "product measured here",
    ]
    if "mfu_4n_of_data_sheet" in u:
        lines.append(
            f"  MFU {u['mfu_4n_of_data_sheet']:.1%} with 4N of the data sheet's peak, as training logs it"
        )
    if "rollout" in p["utilisation"]:
        r = p["utilisation"]["rollout"]
        lines.append(
            f"rollout: {r['seconds']:.4g} s, {r['tokens_per_s']:,.0f} tokens/s; prefill and decode need "
            f"{r['at_best_s']:.4g} s at these ceilings: {r['of_best']:.0%}"
        )
    lines += [
        f"memory of a device: {memory['measured'] / 1e9:.4g} GB at the peak ({memory['source']}); "
        f"planned {memory['predicted'] / 1e9:.4g} GB",
        f"compiled: {compiled['programs']} programs in {compiled['seconds']:.1f} s"
        + (f"; {compiled['while_measured']} OF THEM WHILE MEASURED" if compiled["while_measured"] else ""),
        f"host: the device idles {idle['seconds']:.4f} s a step ({idle['share']:.1%} of the traced ones), "
        f"{idle['longest_s'] * 1e3:.3g} ms at most at a time",
        "",
        "Seconds are a step's; those of scopes are sums over a device's threads or streams, while traced.",
        "FLOPs are of matrix products, bytes of operands and results: what a cache serves can pass 100%.",
    ]
    return lines


def _rate(value: float, unit: str) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G")):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value / 1e6:.4g} M{unit}"
