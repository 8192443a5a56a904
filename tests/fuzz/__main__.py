"""Feeds odd inputs to whatever reads files, flags or replies.

    python -m tests.fuzz TARGET|all [--cases=N] [--seed=S]

A reader may do two things with an input: read it, and then its result keeps the reader's promises; or refuse
it with a UserError that says why. Anything else is a finding: another exception, more than five seconds or
1 GiB of memory, a file opened outside its folder, a process, a connection, code that runs. Its input is kept
in --findings, and a line says how to repeat it.

`all` shares --cases out among the targets, slow readers getting fewer. Every input is a function of the
seed, the target and its number. Counts go to FINDINGS/fuzz.json. The exit code is 1 where something was
found. `python -m tests.fuzz.guided` lets coverage choose the inputs instead.
"""

import json
import sys
import tempfile
from pathlib import Path

from absl import flags

from r2rec_jax.cli import command
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.text_table import text_table
from tests.fuzz import campaign
from tests.fuzz.case import TARGETS, load

ALL = "all"
MILLION = sum(share for _, share in TARGETS.values())
# Field of the counts -> head of its column.
SHOWN = {"cases": "cases", "read": "read", "refused": "refused", "findings": "found"}
SHOWN |= {"cases_per_s": "cases/s", "peak_mb": "MB"}

CASES = flags.DEFINE_integer("cases", None, "how many; 1000 of one target, a million of all", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "another one gives other inputs")
REPEAT = flags.DEFINE_string("repeat", None, "read this one input again, as it was kept")
FINDINGS = flags.DEFINE_string("findings", "runs/fuzz", "folder of counts and findings")


def main(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in (*TARGETS, ALL):
        raise UserError(f"name one target of {', '.join((*TARGETS, ALL))}: python -m tests.fuzz TARGET")
    name, out = arguments[0], Path(FINDINGS.value)
    if REPEAT.value:
        repeat(name, Path(REPEAT.value))
        return
    shares = {name: CASES.value or 1000}
    if name == ALL:
        part = (CASES.value or MILLION) / MILLION
        shares = {target: max(1, round(share * part)) for target, (_, share) in TARGETS.items()}
    counts = {}
    for target, cases in shares.items():
        c = counts[target] = campaign.run(target, cases, SEED.value, out)
        print(
            f"{target}: {c['cases']:,} cases in {c['seconds']:,.0f} s: {c['findings']} findings", flush=True
        )
        total = {key: sum(of[key] for of in counts.values()) for key in ("cases", "findings", "seconds")}
        report = {"seed": SEED.value, **total, "targets": counts}
        write_atomic(out / "fuzz.json", json.dumps(report, indent=2) + "\n")
    rows = [(target, *(f"{c[key]:,.0f}" for key in SHOWN)) for target, c in counts.items()]
    print(text_table(rows, ("", *SHOWN.values()), align="lr"))
    print(f"all: {total['cases']:,} in {total['seconds']:,.0f} s: {total['findings']} findings")
    if total["findings"]:
        sys.exit(1)


def repeat(name: str, path: Path) -> None:
    """Reads one input in this process, without a guard: for a debugger, and for a traceback."""
    with tempfile.TemporaryDirectory() as folder:
        load(name, Path(folder)).read(path.read_bytes())
    print("read without a fault")


if __name__ == "__main__":
    command.run_plain(main)
