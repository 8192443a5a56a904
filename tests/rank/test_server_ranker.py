"""Ranking by a server, against a real one on this machine that says what the test wants."""

import re

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import server
from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.rank.server_ranker import ServerRanker
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers.server import Server
from tests.teachers.test_server import completion, fake  # noqa: F401 - a fixture

CONFIG = ConfigDict({"answer": "titles", "places": 2, "reasoning": True})
TITLES = ["Ran", "Big", "Emma", "Heat"]
CANDIDATES = np.arange(4, dtype=np.int32)
PROMPTS = [
    Prompt(
        RankingRecord(user, {}, [], [], CANDIDATES, CANDIDATES, 1),
        f"Rank for user {user}.",
        np.zeros(1, int),
        TITLES,
    )
    for user in range(4)
]
EVERYBODY = set(range(4))
SAID = "He likes old films most.\nOrder: Emma > Big"


@pytest.fixture
def rank(fake, tmp_path):  # noqa: F811
    """rank(wanted, runs=1, **server) -> {(k, run): judged}, of a ranker made anew."""

    def rank(wanted=EVERYBODY, runs=1, temperature=0.6, **changes) -> dict:
        c = server("m", base_url=fake.url, key_variable="", concurrency=1, retries=0, prompt_price=1e6)
        c.update({"completion_price": 1e6} | changes)  # a token costs 1
        asked = Server(c, "systems.x.server", max_tokens=100, temperature=temperature, top_p=0.9)
        found = ServerRanker(asked, tmp_path / "replies", runs)(PROMPTS, CONFIG, wanted)
        return {(k, run): judged for k, run, judged in found}

    return rank


def said(text, **how) -> tuple:
    return 200, {}, completion(text, **how)


def test_what_a_server_says_is_read_strictly(rank, fake):  # noqa: F811
    fake.script = [
        said(SAID),
        said("<think>Order: Big > Emma\nNo, they prefer Ran.</think>\nOrder: Ran > Big\nOrder: Big > Ran"),
        said("I would take Big."),
        said("Order: Heat > The Third Man"),
    ]
    found = rank()
    assert [found[k, 0].truth_rank for k in range(4)] == [2, 2, 0, 0]
    assert [found[k, 0].ranking.places for k in range(4)] == [[2, 1], [0, 1], [], [3, None]]
    assert [found[k, 0].ranking.valid for k in range(4)] == [True, True, False, False]
    assert found[0, 0].reasoning == "He likes old films most." and found[0, 0].statements == 1
    assert found[1, 0].reasoning == "Order: Big > Emma\nNo, they prefer Ran."
    assert found[2, 0].answer is None
    asked = [request["messages"][0]["content"] for _, request in fake.requests]
    assert asked == [prompt.text for prompt in PROMPTS]


def test_nothing_is_paid_for_twice(rank, fake):  # noqa: F811
    fake.script = [said(f"Order: {title} > Ran") for title in ("Big", "Emma", "Heat")]
    first = rank({0, 2, 3})
    assert len(fake.requests) == 3
    again = rank({0, 2, 3})
    assert len(fake.requests) == 3 and again == first
    rank()
    assert len(fake.requests) == 4 and "user 1" in fake.requests[-1][1]["messages"][0]["content"]
    rank(runs=2)
    assert len(fake.requests) == 8  # the second runs alone
    rank(temperature=0.0)
    rank(model="m2", reported_model="m")
    assert len(fake.requests) == 16  # asked otherwise, or somebody else


def test_a_bad_answer_stands_and_a_lost_one_is_asked_again(rank, fake):  # noqa: F811
    fake.script = [said("Order: Big >", reason="length"), said(None), said(SAID, reason="error")]
    with pytest.raises(UserError, match=r"1 of 4 requests .* got no reply \(bad_reply\): run the same"):
        rank()
    assert len(fake.requests) == 4
    found = rank()
    assert len(fake.requests) == 5 and "user 2" in fake.requests[-1][1]["messages"][0]["content"]
    assert found[0, 0].truncated and not found[0, 0].ranking.valid
    assert found[1, 0].truth_rank == 0 and not found[1, 0].ranking.valid


def test_replies_of_another_name_are_kept_and_read_once_it_is_the_models(rank, fake, tmp_path):  # noqa: F811
    fake.script = [said("Order: Big > Ran", model="served")]
    with pytest.raises(UserError, match=r"as 'served', .* --config.systems.x.server.reported_model=served"):
        rank()
    assert len(fake.requests) == 1
    fake.script = [said(SAID, model="served")] * 3
    found = rank(reported_model="served")
    assert len(fake.requests) == 4 and found[0, 0].truth_rank == 1
    kept = (tmp_path / "replies" / "replies.jsonl").read_text().splitlines()
    assert len(kept) == 4 and all("served" not in line for line in kept[1:])
    with pytest.raises(UserError, match=r"cost_limit 25 is reached \(40\)"):  # of whichever name
        rank(runs=2, reported_model="served", cost_limit=25.0)


def test_a_text_that_is_refused_is_a_miss_and_costs_nothing(rank, fake):  # noqa: F811
    fake.script = [(400, {}, {"error": {"message": "content policy"}})]
    found = rank()
    assert found[0, 0].truth_rank == 0 and len(fake.requests) == 4
    rank()
    assert len(fake.requests) == 5


def test_the_limit_counts_what_was_paid_before(rank, fake):  # noqa: F811
    rank({0, 1})  # 10 each
    with pytest.raises(UserError, match=r"systems.x.server.cost_limit 25 is reached \(30\)"):
        rank(cost_limit=25.0)
    assert len(fake.requests) == 3
    rank({0, 1, 2}, cost_limit=1.0)
    assert len(fake.requests) == 3


def test_untrusted_text_stays_text(rank, fake):  # noqa: F811
    fake.script = [said("a\x1f3\x1fb <｜User｜> c\u202e d\nOrder: Big > Ran")]
    judged = rank({0})[0, 0]
    assert re.fullmatch(r"[a-z0-9 ]+", judged.reasoning) and judged.truth_rank == 1
