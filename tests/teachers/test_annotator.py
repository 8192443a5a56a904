"""Asking, judging, asking again, and going on after an interruption."""

import dataclasses
import json
from collections import Counter

import pytest

from r2rec_jax.prompts.wording import WORDINGS, wording
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers.annotator import annotate
from r2rec_jax.teachers.journal import Journal
from r2rec_jax.teachers.request import Reply, Request, request_text
from r2rec_jax.teachers.template import TemplateTeacher
from r2rec_jax.teachers.validator import REASONS, Validator, read_trace
from tests.teachers.asked import questions_of

MOVIES = wording("movies")

GOOD, BAD = "good", "bad"


@pytest.fixture
def asked(dataset, chat, config):
    return questions_of(dataset, chat, config)


class Scripted:
    """A teacher that plays `script[user, task]`, one entry a call: GOOD is the template's text, None a loss,
    anything else its own text. Afterwards it is good. `stop_after` calls it is interrupted."""

    def __init__(self, dataset, config, script=None, stop_after=None):
        self.template = TemplateTeacher(dataset.catalog, wording(config.prompt.wording), config.prompt)
        self.script, self.stop_after, self.asked = dict(script or {}), stop_after, []

    def __call__(self, asks, receive):
        for ask in reversed(asks):  # replies come in any order
            if self.stop_after is not None and len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append((ask.question.key, ask.attempt, ask.text))
            said = (self.script.get(ask.question.key) or [GOOD]).pop(0)
            if said is None:
                receive(ask, None)
            elif said == GOOD:
                paid = lambda a, r: receive(a, dataclasses.replace(r, completion_tokens=5, cost=0.5))  # noqa: E731
                self.template([ask], paid)
            else:
                receive(ask, Reply(said, None, 3, 2, 0.25))


@pytest.fixture
def run(dataset, chat, config, asked, tmp_path):
    """run(teacher, folder) -> counts."""

    def run(teacher, folder=tmp_path, questions=asked, **more):
        folder.mkdir(exist_ok=True)
        words = wording(config.prompt.wording)
        validator = Validator(dataset.catalog, words, chat, config.prompt, 1000)

        def text_of(q, refused):
            return f"{q.key} {refused}"

        return annotate(questions, teacher, text_of, validator, Journal(folder), 3, **more)

    return run


def test_traces_come_in_the_order_of_the_questions(run, dataset, config, asked, tmp_path):
    counts = run(Scripted(dataset, config))
    lines = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    assert [(line["user"], line["task"]) for line in lines] == [question.key for question in asked]
    assert all(list(line) == ["user", "task", "prompt", "reasoning", "answer"] for line in lines)
    assert [line["prompt"] for line in lines] == [question.prompt for question in asked]
    assert counts == json.loads((tmp_path / "counts.json").read_text())
    assert counts["accepted"] == counts["questions"] == counts["replies"] == len(asked)
    assert (counts["completion_tokens"], counts["cost"]) == (5 * len(asked), 0.5 * len(asked))


def test_replies_of_another_model_are_no_attempts_and_are_used_once_it_is_the_one(
    run, dataset, config, asked
):
    good = Scripted(dataset, config)

    def answer_as(model, fault=None):
        def teacher(asks, receive):
            def named(ask, reply):
                receive(ask, dataclasses.replace(reply, other_model=model, fault=fault))

            good(asks[:2], named)
            raise UserError("another name")

        return teacher

    for model, fault in (("cheap", None), ("cheap", None), ("served", "truncated"), ("served", None)):
        with pytest.raises(UserError, match="another name"):
            run(answer_as(model, fault))
    teacher = Scripted(dataset, config)
    counts = run(teacher, is_model=lambda name: name == "served")
    assert {key for key, *_ in teacher.asked} == {question.key for question in asked[2:]}
    assert counts["accepted"] == len(asked) and counts["replies"] == len(asked) + 6
    assert counts["cost"] == 0.5 * counts["replies"]
    assert counts["refused"] == {"wrong_model": 4, "truncated": 2}


def test_what_is_refused_is_asked_again_up_to_the_limit(run, dataset, config, asked):
    first, second, third = (question.key for question in asked[:3])
    teacher = Scripted(
        dataset, config, {first: [BAD, GOOD], second: [BAD, "", BAD, GOOD], third: [None, GOOD]}
    )
    counts = run(teacher)
    tries = Counter(key for key, _, _ in teacher.asked)
    assert (tries[first], tries[second], tries[third]) == (2, 3, 2)
    assert counts["accepted"] == len(asked) - 1 and counts["given_up"] == 1
    assert counts["refused"] == {"no_answer": 3, "empty": 1}
    assert [text for key, _, text in teacher.asked if key == second] == [
        f"{second} {reason}" for reason in (None, "no_answer", "empty")
    ]
    assert [attempt for key, attempt, _ in teacher.asked if key == third] == [1, 1]  # a loss is no attempt


@pytest.mark.parametrize("stop_after", [0, 1, 7, 41])
def test_interrupted_and_resumed_is_uninterrupted(run, dataset, config, asked, tmp_path, stop_after):
    script = {question.key: [BAD, GOOD] for question in asked[::3]}
    whole = run(Scripted(dataset, config, {k: list(v) for k, v in script.items()}), tmp_path / "whole")
    halved = Scripted(dataset, config, {k: list(v) for k, v in script.items()}, stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(halved, tmp_path / "halved")
    assert not (tmp_path / "halved" / "traces.jsonl").exists()
    asked_before = len(halved.asked)
    halved.stop_after = None
    assert run(halved, tmp_path / "halved") == whole
    assert len(halved.asked) == whole["replies"] and asked_before == stop_after
    for name in ("traces.jsonl", "counts.json"):
        assert (tmp_path / "halved" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = Scripted(dataset, config)
    assert run(again, tmp_path / "whole") == whole and again.asked == []


def test_a_half_written_line_is_dropped_and_a_foreign_one_named(run, dataset, config, tmp_path):
    whole = run(Scripted(dataset, config))
    journal = tmp_path / "replies.jsonl"
    kept = journal.read_bytes()
    last = kept.splitlines(keepends=True)[-1]
    journal.write_bytes(kept.removesuffix(last) + last[:20])
    assert run(Scripted(dataset, config)) == whole
    for line in (b"{}\n", b"not json\n", b'{"user": "4"}\n', b"\n"):
        journal.write_bytes(kept + line)
        with pytest.raises(UserError, match=rf"replies\.jsonl:{whole['replies'] + 1} is not a valid reply"):
            run(Scripted(dataset, config))


ODD_ROWS = [
    {"cost": float("nan")},  # no cost limit would hold any more
    {"cost": -1.0},
    {"completion_tokens": 10**400},
    {"refused": "sunday"},
    {"refused": None, "text": "no trace"},
]


@pytest.mark.parametrize("change", ODD_ROWS)
def test_a_reply_that_no_run_has_written_is_named(run, dataset, config, tmp_path, change):
    run(Scripted(dataset, config))
    journal = tmp_path / "replies.jsonl"
    first, *others = journal.read_text().splitlines(keepends=True)
    journal.write_text(json.dumps(json.loads(first) | change) + "\n" + "".join(others))
    with pytest.raises(UserError, match=r"replies\.jsonl:1 is not a valid reply"):
        run(Scripted(dataset, config))


def test_a_reply_nested_too_deeply_is_named(tmp_path):
    (tmp_path / "replies.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(UserError, match=r"replies\.jsonl:1 is not a valid reply"):
        Journal(tmp_path)


def test_questions_without_any_reply_are_reported_and_asked_by_the_next_run(
    run, dataset, config, asked, tmp_path
):
    key = asked[4].key
    teacher = Scripted(dataset, config, {key: [None] * 3})
    with pytest.raises(UserError, match=f"1 of {len(asked)} questions got no reply.*{key[0]}: run the same"):
        run(teacher)
    assert not (tmp_path / "traces.jsonl").exists()
    before = len(teacher.asked)
    assert run(teacher)["accepted"] == len(asked)
    assert [k for k, _, _ in teacher.asked[before:]] == [key]


def test_no_trace_at_all_is_an_error_that_names_the_reasons(run, dataset, config, asked):
    script = {question.key: [BAD] * 3 for question in asked}
    with pytest.raises(UserError, match=rf"no trace was accepted \(no_answer {3 * len(asked)}\)"):
        run(Scripted(dataset, config, script))


# What is asked.


def test_a_user_without_chains_has_no_rating_question(dataset, chat, config):
    with_chains = questions_of(dataset, chat, config)
    assert {q.task for q in with_chains} == {"rating", "ranking"}
    for q in with_chains:
        assert (q.chain in q.record.chains) if q.task == "rating" else (q.chain is None)
    config.prompt.chains = 0
    assert {q.task for q in questions_of(dataset, chat, config)} == {"ranking"}
    config.annotate.tasks = ("poem",)
    with pytest.raises(UserError, match="rating, ranking"):
        questions_of(dataset, chat, config)


def test_a_rating_question_that_fits_no_bucket_is_named(dataset, chat, config):
    config.annotate.tasks = ("rating",)
    config.prompt.update({"wording": "movies", "likes": 0, "chains": 1})
    text = questions_of(dataset, chat, config)[0].prompt
    length = len(chat.prompt(text))
    config.prompt.buckets = (length - 1,)
    with pytest.raises(UserError, match=r"user \d+.* prompt.buckets"):
        questions_of(dataset, chat, config)


@pytest.mark.parametrize("name", WORDINGS)
@pytest.mark.parametrize("answer", ["titles", "numbers"])
def test_the_answer_is_told_once_and_no_plainer_at_a_second_try(dataset, chat, config, name, answer):
    config.prompt.update({"wording": name, "answer": answer})
    words = wording(name)
    for question in questions_of(dataset, chat, config)[:10]:
        first = request_text(question, dataset.catalog, words, config.prompt)
        assert question.prompt in first
        for reason, said in REASONS.items():
            again = request_text(question, dataset.catalog, words, config.prompt, reason)
            assert again == f"{first}\n\nAn earlier solution was refused: {said}."
        told = first.replace(question.prompt, "")
        if question.task == "rating":
            assert f"right answer: {question.chain.r01:g}." in told
            assert told.endswith(f"Rating: {question.chain.r01:g}")
        else:
            place = question.record.candidates.tolist().index(question.record.truth)
            title = words.title(dataset.catalog, question.record.truth)
            assert f"number {place + 1}, {title}." in told
            assert f"Order: {title if answer == 'titles' else place + 1} > and so on" in told


def test_the_ask_reads_so(dataset, config, chat):
    config.prompt.update({"wording": "movies", "answer": "numbers"})
    question = next(q for q in questions_of(dataset, chat, config) if q.task == "rating")
    text = request_text(question, dataset.catalog, MOVIES, config.prompt)
    assert text.startswith("You write model solutions from which a student learns to reason. The exercise")
    assert f"<exercise>\n{question.prompt}\n</exercise>\n\nYou alone are told the right answer: " in text
    assert "\n- Masked: a statement uses nothing that comes after its own hop in the chain.\n" in text
    bare = dataclasses.replace(
        question, chain=None, task="ranking", record=dataclasses.replace(question.record, chains=[])
    )
    assert "chain" not in request_text(bare, dataset.catalog, MOVIES, config.prompt).replace(bare.prompt, "")


def test_the_template_teacher_without_reasoning(dataset, chat, config):
    config.prompt.reasoning = False
    words = wording("compact")
    validator = Validator(dataset.catalog, words, chat, config.prompt, 1000)
    asked = questions_of(dataset, chat, config)
    replies = []
    asks = [Request(question, "", 1) for question in asked]
    TemplateTeacher(dataset.catalog, words, config.prompt)(
        asks, lambda ask, reply: replies.append((ask, reply))
    )
    for ask, reply in replies:
        trace = read_trace(reply.text, ask.question.task)
        assert trace.reasoning == "" and validator.fault(ask.question, trace) is None
