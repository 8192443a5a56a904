"""Trials as text."""

from r2rec_jax.runtime.text_table import text_table
from tests.chaos.harness import Trial
from tests.chaos.moments import PHASES


def table(trials: list[Trial]) -> str:
    """A row a stage, then every difference, and what was not compared."""
    left = "orphans (longest, s)", "shared memory left"
    columns, lines = ("stage", "kills", *PHASES, "alone", "runs", "ends", "a run, s", *left, "equal"), []
    for trial in trials:
        phases = [trial.kills[phase] for phase in PHASES]
        counts = (trial.killed, *phases, trial.alone, trial.runs, trial.ends)
        orphans = f"{trial.orphans} ({trial.orphan_s:g})"
        equal = "NO" if trial.difference else "yes" if trial.ends else "never ended"
        left = orphans, str(trial.segments)
        lines.append((trial.stage, *map(str, counts), f"{trial.whole_s:g}", *left, equal))
    text = [text_table(lines, columns)]
    text += [f"{trial.stage}: {trial.difference}" for trial in trials if trial.difference]
    left_out = sorted({name for trial in trials for name in trial.left_out})
    return "\n".join([*text, f"not compared: {', '.join(left_out) or 'nothing'}"])
