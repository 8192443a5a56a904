"""What is kept of a trial of faithfulness, a line a user and run, and what the lines say together."""

import itertools

import numpy as np

from r2rec_jax.faithful.edits import EDITS, LIKENESSES, Edited
from r2rec_jax.faithful.measures import measure_edits, measure_facts, measure_reasoning, ranks
from r2rec_jax.faithful.trials import OWN, REASONINGS, Trial
from r2rec_jax.teachers.facts import FactChecker
from r2rec_jax.teachers.question import Question

DECIMALS = 6  # of a log-probability in a line


def line_of(run: int, edited: Edited, trial: Trial, checker: FactChecker) -> dict:
    """JSON-ready: "truth_rank" after the own reasoning; "reasoning", "truncated"; "statements", of each its
    "text" and "facts", [kind, supported] pairs; "scores" as in Trial. Of run 0 also "prompt", "truth", its
    index among the candidates, and "alike", by likeness the indices of those like the target's last item.
    """
    prompt = edited.prompt
    record = prompt.record
    truth = record.candidates.tolist().index(record.truth)
    alike = {kind: np.flatnonzero(alike).tolist() for kind, alike in edited.alike.items()}
    statements = [
        {"text": one.text, "facts": [[fact.kind, fact.supported] for fact in one.facts]}
        for one in checker.check(Question.of(prompt), trial.reasoning)
    ]
    return ({} if run else {"prompt": prompt.text, "truth": truth, "alike": alike}) | {
        "truth_rank": int(ranks(trial.score_C[OWN])[truth]),
        "reasoning": trial.reasoning,
        "truncated": trial.truncated,
        "statements": statements,
        "scores": {name: np.round(score, DECIMALS).tolist() for name, score in trial.score_C.items()},
    }


def measure(lines_RN: list[list[dict]], seed: int) -> dict[str, dict]:
    """{"edits", "reasoning", "facts"} as faithful_measures has them, of the lines of R runs of n users."""
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
    """Every statement of the lines that its prompt does not support, with reasoning and prompt to read."""
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
