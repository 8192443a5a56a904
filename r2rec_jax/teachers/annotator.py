"""Questions to traces: ask, judge, ask again up to a limit, and remember every reply on the way."""

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
from r2rec_jax.teachers.request import Ask, Receive, Reply
from r2rec_jax.teachers.validator import REASONS, Validator, read_trace

TRACES, COUNTS = "traces.jsonl", "counts.json"
OTHER = "wrong_model"  # what a row is refused for while another model wrote it


def annotate(
    asked: list[Question],
    teacher: Callable[[list[Ask], Receive], None],
    text_of: Callable[[Question, str | None], str],
    validator: Validator,
    journal: Journal,
    attempts: int,
    is_model: Callable[[str], bool] = lambda _: False,
) -> dict:
    """Has every question answered until a trace is accepted or `attempts` were refused.

    `text_of(question, refused)` words an ask. Replies are appended to the journal; what it holds
    already is not asked again; a reply of another model is judged where it `is_model` after all, and is no
    attempt otherwise. At the end traces.jsonl and counts.json are written beside it, whole:
    accepted traces in the order of the questions, and the counts that are returned.

    Raises:
      UserError: no trace was accepted, or a question got no reply at all `attempts` times.
    """
    by_key: dict[tuple[int, str], list[dict]] = {question.key: [] for question in asked}
    for number, row in enumerate(journal.rows, start=1):
        accepted = row["refused"] is None and read_trace(row["text"], row["task"]).answer is not None
        if not accepted and row["refused"] not in REASONS:
            raise UserError(
                f"{journal.path}:{number} is not a reply as kept here: remove the line to have it asked again"
            )
        by_key.get((row["user"], row["task"]), []).append(row)
    lost = Counter()
    for question in asked:
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

    with tqdm(total=len(asked), desc="annotate", unit="trace", mininterval=1.0) as bar:

        def receive(ask: Ask, reply: Reply | None) -> None:
            question = ask.question
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

        bar.update(sum(not is_open(question) for question in asked))
        while pending := [question for question in asked if is_open(question)]:
            teacher([_ask(question, by_key[question.key], text_of) for question in pending], receive)

    if silent := [question for question in asked if is_unanswered(question)]:
        raise UserError(
            f"{len(silent)} of {len(asked)} questions got no reply, the first one's user is "
            f"{silent[0].record.user}: run the same command again to ask only for these"
        )
    return _finish(asked, by_key, journal.path.parent)


def _ask(question: Question, rows: list[dict], text_of) -> Ask:
    rows = [row for row in rows if row["refused"] != OTHER]
    refused = rows[-1]["refused"] if rows else None
    return Ask(question, text_of(question, refused), len(rows) + 1)


def _finish(asked: list[Question], by_key: dict, folder: Path) -> dict:
    lines = []
    for question in asked:
        accepted = next((row for row in by_key[question.key] if not row["refused"]), None)
        if accepted:
            trace = read_trace(accepted["text"], question.task)
            user, task = question.key
            line = {"user": user, "task": task, "prompt": question.prompt}
            lines.append(line | {"reasoning": trace.reasoning, "answer": trace.answer})
    rows = [row for rows in by_key.values() for row in rows]
    reasons = Counter(row["refused"] for row in rows if row["refused"])
    counts = {
        "questions": len(asked),
        "accepted": len(lines),
        "given_up": len(asked) - len(lines),
        "replies": len(rows),
        "refused": dict(reasons.most_common()),
        "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
        "completion_tokens": sum(row["completion_tokens"] for row in rows),
        "cost": sum(row["cost"] for row in rows),
        "dropped_chains": sum(question.dropped_chains for question in asked),
        "dropped_likes": sum(question.dropped_likes for question in asked),
    }
    if not lines:
        reasons = ", ".join(f"{name} {n}" for name, n in counts["refused"].items())
        raise UserError(f"no trace was accepted ({reasons}): see {folder} and try another teacher")
    write_atomic(folder / COUNTS, json.dumps(counts, indent=2) + "\n")
    write_atomic(folder / TRACES, b"".join(map(json_line, lines)))
    return counts
