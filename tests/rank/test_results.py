"""users.jsonl: complete lines survive whatever happens to the writer; other candidates' are refused."""

import dataclasses
import json

import numpy as np
import pytest

from r2rec_jax.metrics.system_metrics import measure
from r2rec_jax.rank import results
from r2rec_jax.rank.results import UserLines, read_metrics, write_metrics
from r2rec_jax.runtime.errors import UserError

USERS = [4, 2, 9]


def written(folder, dataset) -> UserLines:
    lines = UserLines(folder, dataset)
    for run in (1, 0):
        for user in USERS[::-1]:
            lines.append("b>a", run, np.int32(user), np.int32(user + run), answer="Ünï\u2028code")
    lines.append("a", 0, 2, 0)
    return lines


def test_lines_read_back(dataset, tmp_path):
    written(tmp_path, dataset)
    lines = UserLines(tmp_path, dataset)
    assert lines.ranks("b>a", USERS).tolist() == [[4, 2, 9], [5, 3, 10]]
    assert lines.ranks("b>a", USERS).dtype == np.int32
    assert ("a", 0, 2) in lines and ("a", 0, 4) not in lines and ("a", 1, 2) not in lines
    assert lines.of("b>a", 1, [9])[0]["answer"] == "Ünï\u2028code"
    with pytest.raises(UserError, match=r"no line of 'a', run 0, user 4"):
        lines.ranks("a", USERS)
    lines.sort(["a", "b>a"], USERS)
    text = (tmp_path / results.USERS).read_text(encoding="utf-8")
    order = [(row["system"], row["run"], row["user"]) for row in map(json.loads, text.split("\n")[:-1])]
    assert order == [("a", 0, 2)] + [("b>a", run, user) for run in (0, 1) for user in USERS]


def test_a_line_cut_off_is_dropped_wherever_it_was_cut(dataset, tmp_path):
    written(tmp_path, dataset)
    path = tmp_path / results.USERS
    whole = path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        lines = UserLines(tmp_path, dataset)
        assert path.read_bytes() == whole[:last] and ("a", 0, 2) not in lines
        lines.append("a", 0, 2, 0)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "users.jsonl:8 is not a valid result"),
        ("[]", "users.jsonl:8 is not a valid result"),
        ('{"system": "a"}', "users.jsonl:8 is not a valid result"),
        ('{"system": "a", "run": 0, "user": 1, "truth_rank": -1, "candidates": "x"}', "not a valid result"),
        ('{"system": "a", "run": 0, "user": 1, "truth_rank": true, "candidates": "x"}', "not a valid result"),
        ('{"system": "a", "run": 0, "user": 1, "truth_rank": 1, "candidates": "x"}', "ranks candidates x"),
    ],
)
def test_lines_that_are_none_are_refused(line, named, dataset, tmp_path):
    written(tmp_path, dataset)
    path = tmp_path / results.USERS
    with path.open("a") as file:
        file.write(line + "\n")
    before = path.read_bytes()
    with pytest.raises(UserError, match=named):
        UserLines(tmp_path, dataset)
    assert path.read_bytes() == before


def test_a_line_said_twice_is_refused(dataset, tmp_path):
    lines = written(tmp_path, dataset)
    with pytest.raises(UserError, match="repeats the line"):
        lines.append("a", 0, 2, 1)
    path = tmp_path / results.USERS
    path.write_bytes(path.read_bytes() + path.read_bytes())
    with pytest.raises(UserError, match="repeats the line"):
        UserLines(tmp_path, dataset)


def test_results_of_other_candidates_are_refused(dataset, tmp_path):
    written(tmp_path, dataset)
    user = dataset.split.users["evaluation"][0]
    candidates = np.array(dataset.split.candidates)
    candidates[user] = candidates[user][::-1]
    other = dataclasses.replace(dataset, split=dataclasses.replace(dataset.split, candidates=candidates))
    with pytest.raises(UserError, match="choose another --workdir"):
        UserLines(tmp_path, other)


def test_metrics_read_back(dataset, tmp_path):
    users = dataset.split.users["evaluation"]
    row = measure(dataset, users, np.ones((2, len(users)), int), 0)
    write_metrics(tmp_path, dataset, len(users), 0, {"a": row}, {})
    assert read_metrics(tmp_path)["systems"]["a"] == row
    (tmp_path / results.METRICS).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_metrics(tmp_path)
    with pytest.raises(UserError, match="no evaluation"):
        read_metrics(tmp_path / "absent")


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"seed": 0, "systems": [1]}', '{"seed": "0", "systems": {}}', "[" * 9**5]
)
def test_metrics_of_another_form_are_damaged(tmp_path, text):
    (tmp_path / results.METRICS).write_text(text)
    with pytest.raises(UserError, match="damaged"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("change", [{"truth_rank": 10**30}, {"run": -1}, {"user": 1 << 31}, {"run": True}])
def test_a_number_that_no_line_has_is_refused(dataset, tmp_path, change):
    written(tmp_path, dataset)
    path = tmp_path / results.USERS
    first, others = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(first) | change) + "\n" + others)
    with pytest.raises(UserError, match=r"users\.jsonl:1 is not a valid result"):
        UserLines(tmp_path, dataset)


def test_a_message_is_as_long_as_a_line(dataset, tmp_path):
    written(tmp_path, dataset)
    path = tmp_path / results.USERS
    first, others = path.read_text().split("\n", 1)
    for change in ({"candidates": "\x1b" * 99_999}, {"system": "x" * 99_999}):
        line = json.dumps(json.loads(first) | change) + "\n"
        path.write_text(line + line + others)
        with pytest.raises(UserError, match=r"ranks candidates|repeats the line") as caught:
            UserLines(tmp_path, dataset)
        assert len(str(caught.value)) < 600 and str(caught.value).isprintable()
