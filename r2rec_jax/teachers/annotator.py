"""Requests a trace for each question, validates the replies, retries up to a limit, journals every reply."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.untrusted import json_line
from r2rec_jax.teachers.journal import Journal
from r2rec_jax.teachers.question import Question
from r2rec_jax.teachers.request import Receive, Reply, Request
from r2rec_jax.teachers.validator import REASONS, Validator, read_trace

TRACES, COUNTS = "traces.jsonl", "counts.json"
OTHER = "wrong_model"  # rejection reason of a reply that another model wrote


def annotate(
    questions: list[Question],
    teacher: Callable[[list[Request], Receive], None],
    text_of: Callable[[Question, str | None], str],
    validator: Validator,
    journal: Journal,
    attempts: int,
    is_model: Callable[[str], bool] = lambda _: False,
) -> dict:
    """Requests traces for every question until one is accepted or `attempts` of them were rejected.

    `text_of(question, refused)` gives the text of a request. Replies are appended to the journal, and
    replies already in the journal are not requested again. A reply of another model is validated if
    `is_model` accepts the model's name; otherwise it does not count as an attempt. At the end the function
    writes traces.jsonl (accepted traces in the order of the questions) and counts.json beside the journal,
    and returns the counts.

    Raises:
      UserError: no trace was accepted, or a question got no reply in `attempts` requests.
    """
    by_key: dict[tuple[int, str], list[dict]] = {question.key: [] for question in questions}
    for number, row in enumerate(journal.rows, start=1):
        accepted = row["refused"] is None and read_trace(row["text"], row["task"]).answer is not None
        if not accepted and row["refused"] not in REASONS:
            raise UserError(
                f"{journal.path}:{number} is not a valid reply: remove the line to send the request again"
            )
        by_key.get((row["user"], row["task"]), []).append(row)
    lost = Counter()
    for question in questions:
        rows = by_key[question.key]
        for place, row in enumerate(rows):
            if row["refused"] == OTHER and row.get("other_model") and is_model(row["other_model"]):
                fault = row.get("fault") or validator.fault(question, read_trace(row["text"], question.task))
                rows[place] = row | {"refused": fault}

    def is_unanswered(question: Question) -> bool:
        rows = by_key[question.key]
        tries = sum(row["refused"] != OTHER for row in rows)
        return tries < attempts and all(row["refused"] for row in rows)

    def is_open(question: Question) -> bool:
        return is_unanswered(question) and lost[question.key] < attempts

    with tqdm(total=len(questions), desc="annotate", unit="trace", mininterval=1.0) as bar:

        def receive(request: Request, reply: Reply | None) -> None:
            question = request.question
            if reply is None:
                lost[question.key] += 1
                return
            user, task = question.key
            if reply.other_model:
                refused, other = OTHER, {"other_model": reply.other_model, "fault": reply.fault}
            else:
                refused = reply.fault or validator.fault(question, read_trace(reply.text, task))
                other = {}
            row = {
                "user": user,
                "task": task,
                "refused": refused,
                "text": reply.text,
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
                "cost": reply.cost,
            } | other
            journal.append(row)
            by_key[question.key].append(row)
            bar.update(not is_open(question))

        bar.update(sum(not is_open(question) for question in questions))
        while pending := [question for question in questions if is_open(question)]:
            teacher([_request(question, by_key[question.key], text_of) for question in pending], receive)

    if silent := [question for question in questions if is_unanswered(question)]:
        raise UserError(
            f"{len(silent)} of {len(questions)} questions got no reply, the first for user "
            f"{silent[0].record.user}: run the same command again to send only these"
        )
    return _finish(questions, by_key, journal.path.parent)


def _request(question: Question, rows: list[dict], text_of) -> Request:
    rows = [row for row in rows if row["refused"] != OTHER]
    refused = rows[-1]["refused"] if rows else None
    return Request(question, text_of(question, refused), len(rows) + 1)


def _finish(questions: list[Question], by_key: dict, folder: Path) -> dict:
    lines = []
    for question in questions:
        accepted = next((row for row in by_key[question.key] if not row["refused"]), None)
        if accepted:
            trace = read_trace(accepted["text"], question.task)
            user, task = question.key
            line = {"user": user, "task": task, "prompt": question.prompt}
            lines.append(line | {"reasoning": trace.reasoning, "answer": trace.answer})
    rows = [row for rows in by_key.values() for row in rows]
    reasons = Counter(row["refused"] for row in rows if row["refused"])
    counts = {
        "questions": len(questions),
        "accepted": len(lines),
        "given_up": len(questions) - len(lines),
        "replies": len(rows),
        "refused": dict(reasons.most_common()),
        "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
        "completion_tokens": sum(row["completion_tokens"] for row in rows),
        "cost": sum(row["cost"] for row in rows),
        "dropped_chains": sum(question.dropped_chains for question in questions),
        "dropped_likes": sum(question.dropped_likes for question in questions),
    }
    if not lines:
        reasons = ", ".join(f"{name} {n}" for name, n in counts["refused"].items())
        raise UserError(
            f"no trace was accepted ({reasons}): read the replies in {folder} or try another teacher"
        )
    write_atomic(folder / COUNTS, json.dumps(counts, indent=2) + "\n")
    write_atomic(folder / TRACES, b"".join(map(json_line, lines)))
    return counts
