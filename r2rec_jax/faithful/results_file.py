"""Result lines of faithfulness trials, one per user and run, and measures computed from them."""

import itertools

import numpy as np

from r2rec_jax.faithful.edits import EDITS, LIKENESSES, Edited
from r2rec_jax.faithful.measures import measure_edits, measure_facts, measure_reasoning, ranks
from r2rec_jax.faithful.trials import OWN, REASONINGS, Trial
from r2rec_jax.teachers.facts import FactChecker
from r2rec_jax.teachers.question import Question

DECIMALS = 6  # decimals of a log-probability in a line


def line_of(run: int, edited: Edited, trial: Trial, checker: FactChecker) -> dict:
    """A JSON-able line of one user and run.

    "truth_rank": with the own reasoning. "statements": each with "text" and "facts", [kind, supported] pairs.
    "scores": as in Trial. Run 0 also has "prompt", "truth" (index among the candidates) and "alike" (likeness
    -> indices of the candidates similar to the target's last item).
    """
    prompt = edited.prompt
    record = prompt.record
    truth = record.candidates.tolist().index(record.truth)
    alike = {kind: np.flatnonzero(alike).tolist() for kind, alike in edited.alike.items()}
    statements = [
        {"text": checked.text, "facts": [[fact.kind, fact.supported] for fact in checked.facts]}
        for checked in checker.check(Question.of(prompt), trial.reasoning)
    ]
    return ({} if run else {"prompt": prompt.text, "truth": truth, "alike": alike}) | {
        "truth_rank": int(ranks(trial.score_C[OWN])[truth]),
        "reasoning": trial.reasoning,
        "truncated": trial.truncated,
        "statements": statements,
        "scores": {name: np.round(score, DECIMALS).tolist() for name, score in trial.score_C.items()},
    }


def measure(lines_RN: list[list[dict]], seed: int) -> dict[str, dict]:
    """{"edits", "reasoning", "facts"} (see measures.py) from the lines of R runs of n users."""
    first, users = lines_RN[0], list(zip(*lines_RN, strict=True))
    nothing = [np.nan] * len(first[0]["scores"][OWN])
    present = set().union(*(line["scores"] for line in first))
    score = {
        name: np.array([[line["scores"].get(name, nothing) for line in user] for user in users])
        for name in (OWN, *EDITS, *REASONINGS)
        if name in present
    }
    places = np.arange(len(nothing))
    alike = {
        kind: np.array([np.isin(places, line["alike"].get(kind, [])) for line in first])
        for kind in LIKENESSES
    }
    statements = [list(itertools.chain(*(line["statements"] for line in user))) for user in users]
    return {
        "edits": measure_edits(score, alike, seed),
        "reasoning": measure_reasoning(score, np.array([line["truth"] for line in first]), seed),
        "facts": measure_facts(statements, seed),
    }


def unsupported(lines_RN: list[list[dict]]) -> list[dict]:
    """All statements that their prompt does not support, with reasoning and prompt."""
    return [
        {
            "system": line["system"],
            "user": line["user"],
            "user_id": line["user_id"],
            "run": line["run"],
            "statement": statement["text"],
            "unsupported": sorted({kind for kind, supported in statement["facts"] if not supported}),
            "reasoning": line["reasoning"],
            "prompt": first["prompt"],
        }
        for lines in lines_RN
        for line, first in zip(lines, lines_RN[0], strict=True)
        for statement in line["statements"]
        if not all(supported for _, supported in statement["facts"])
    ]
