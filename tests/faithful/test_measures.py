"""Measures of faithfulness against loops over made-up scores, user by user and candidate by candidate."""

import itertools
import re

import numpy as np
import pytest

from r2rec_jax.faithful.edits import LIKENESSES
from r2rec_jax.faithful.measures import (
    estimate,
    measure_edits,
    measure_facts,
    measure_reasoning,
    paired,
)
from r2rec_jax.faithful.measures_text import text
from r2rec_jax.faithful.trials import OWN, REASONINGS
from r2rec_jax.metrics.intervals import bootstrap_ci, paired_ci

N, R, C, SEED = 7, 2, 5, 11


@pytest.fixture
def score() -> dict:
    rng = np.random.default_rng(0)
    names = (OWN, "cut", "cut_elsewhere", "flipped", "renamed", "reordered", *REASONINGS)
    found = {name: rng.normal(-4, 2, (N, R, C)) for name in names}
    found["cut"][2], found["cut_elsewhere"][[2, 5]], found["renamed"][0] = np.nan, np.nan, np.nan
    return found


@pytest.fixture
def alike() -> dict:
    rng = np.random.default_rng(1)
    found = {kind: rng.random((N, C)) < 0.5 for kind in LIKENESSES}
    found["co-rated"][4] = False
    return found


def each(values) -> float:
    return float(np.mean(list(values)))


def probabilities(scores) -> list[float]:
    total = sum(np.exp(s) for s in scores)
    return [float(np.exp(s) / total) for s in scores]


def place(scores, c) -> int:
    return 1 + sum(s > scores[c] for s in scores)


def by_user(of, score, name, users) -> np.ndarray:
    return np.array([each(of(k, score[OWN][k, r], score[name][k, r]) for r in range(R)) for k in users])


def test_shifts_and_moves_are_sums_over_candidates(score, alike):
    def shift(k, own, new):
        p, q = probabilities(own), probabilities(new)
        return sum(q[c] - p[c] for c in range(C) if alike["genre"][k, c])

    def rank_shift(k, own, new):
        return each(place(new, c) - place(own, c) for c in range(C) if alike["genre"][k, c])

    def moved(_, own, new):
        return sum(abs(a - b) for a, b in zip(probabilities(own), probabilities(new), strict=True)) / 2

    found = measure_edits(score, alike, SEED)
    assert set(found) == {"cut", "cut_elsewhere", "flipped", "renamed", "reordered"}
    some = [k for k in range(N) if alike["genre"][k].any()]
    for name, gone in (("cut", {2}), ("flipped", set()), ("renamed", {0})):
        users = [k for k in some if k not in gone]
        for field, of in (("shift", shift), ("rank_shift", rank_shift)):
            wanted = by_user(of, score, name, users)
            check(found[name][field]["genre"], wanted, len(users))
        users = [k for k in range(N) if k not in gone]
        check(found[name]["moved"], by_user(moved, score, name, users), len(users))
        changed = by_user(lambda _, a, b: np.argmax(a) != np.argmax(b), score, name, users)
        check(found[name]["top_changed"], changed, len(users))
    # A user without candidates alike by this likeness has no shift of them.
    assert found["flipped"]["shift"]["co-rated"]["users"] == alike["co-rated"].any(axis=1).sum() < N
    less, both = found["cut"]["shift_less_twin"]["genre"], [k for k in some if k not in (2, 5)]
    a, b = (by_user(shift, score, name, both) for name in ("cut", "cut_elsewhere"))
    assert less["users"] == len(both) and less["difference"] == pytest.approx(each(a - b))
    assert less["ci95"] == pytest.approx(paired_ci(a, b, SEED))
    for other, gone in (("renamed", (0, 2)), ("reordered", (2,)), ("cut_elsewhere", (2, 5))):
        both = [k for k in range(N) if k not in gone]
        a, b = (by_user(moved, score, name, both) for name in ("cut", other))
        assert found["cut"]["moved_less"][other]["difference"] == pytest.approx(each(a - b))
    assert "shift_less_twin" not in found["flipped"] and "moved_less" not in found["renamed"]


def check(found: dict, wanted: np.ndarray, users: int) -> None:
    assert found["users"] == users == len(wanted)
    assert found["mean"] == pytest.approx(each(wanted))
    assert found["ci95"] == pytest.approx(bootstrap_ci(wanted, SEED))


def test_reasonings_are_compared_with_the_own(score):
    truth = np.array([0, 1, 2, 3, 4, 0, 1])

    def hit(name):
        return np.array([each(np.argmax(s) == truth[k] for s in score[name][k]) for k in range(N)])

    def tau(_, one, other):
        pairs = list(itertools.combinations(range(C), 2))
        return sum(np.sign((one[i] - one[j]) * (other[i] - other[j])) for i, j in pairs) / len(pairs)

    found = measure_reasoning(score, truth, SEED)
    assert set(found) == {OWN, *REASONINGS} and set(found[OWN]) == {"hr@1"}
    check(found[OWN]["hr@1"], hit(OWN), N)
    for name in REASONINGS:
        check(found[name]["hr@1"], hit(name), N)
        assert found[name]["hr@1_less_own"]["difference"] == pytest.approx(each(hit(name) - hit(OWN)))
        check(found[name]["tau"], by_user(tau, score, name, range(N)), N)
        same = by_user(lambda _, a, b: np.argmax(a) == np.argmax(b), score, name, range(N))
        check(found[name]["same_top"], same, N)


def test_the_same_scores_change_nothing(score, alike):
    found = measure_edits({OWN: score[OWN], "cut": score[OWN] - 3.0}, alike, SEED)["cut"]
    assert abs(found["moved"]["mean"]) < 1e-12 and found["top_changed"]["mean"] == 0
    again = measure_reasoning({OWN: score[OWN], "none": score[OWN]}, np.zeros(N, int), SEED)["none"]
    assert (again["tau"]["mean"], again["same_top"]["mean"]) == (pytest.approx(1), 1)


def test_facts_are_counted_and_a_users_share_is_a_users_value():
    def statement(*facts):
        return {"facts": [list(fact) for fact in facts]}

    good, bad = statement(("title", True), ("who", True)), statement(("title", True), ("who", False))
    users = [[good, good, bad, statement()], [bad, statement(("rating", False))], [statement()], []]
    found = measure_facts(users, SEED)
    assert (found["statements"], found["unsupported"], found["unchecked"]) == (7, 3, 2)
    check(found["unsupported_rate"], np.array([1 / 3, 1]), 2)
    check(found["unchecked_rate"], np.array([1 / 4, 0, 1]), 3)
    who = found["facts"]["who"]
    assert (who["facts"], who["unsupported"]) == (4, 2)
    check(who["rate"], np.array([1 / 3, 1]), 2)
    assert found["facts"]["genre"] == {"facts": 0, "unsupported": 0, "rate": estimate([], SEED)}


def test_nobody_has_no_value():
    nobody = np.full(3, np.nan)
    assert estimate(nobody, SEED) == {"mean": None, "ci95": None, "users": 0}
    assert paired(nobody, np.ones(3), SEED) == {"difference": None, "ci95": None, "p": None, "users": 0}


def test_the_table_has_the_numbers(score, alike):
    edits, reasoning = measure_edits(score, alike, SEED), measure_reasoning(score, np.zeros(N, int), SEED)
    facts = measure_facts([[{"facts": [["title", False]]}], [{"facts": [["title", True]]}]], SEED)
    shown = text({"mine": {"edits": edits, "reasoning": reasoning, "facts": facts}})
    rows = {re.split(r"\s{2,}", line.strip())[0]: line for line in shown.splitlines()}
    cut = rows["a chain cut"]
    assert cut.split()[3] == "6"  # users
    assert f"{edits['cut']['moved']['mean']:.3f}".lstrip("0") in cut.split()
    assert f"{edits['cut']['shift_less_twin']['genre']['difference']:+.3f}".replace("0.", ".") in cut
    assert rows["none"].split()[1] == f"{reasoning['none']['hr@1']['mean']:.3f}".lstrip("0")
    assert rows["title"].split()[1:4] == ["2", "1", ".500"]
    nothing = {"edits": {}, "reasoning": {}, "facts": measure_facts([[]], SEED)}
    assert "no prompt could be edited" in text({"mine": nothing})
