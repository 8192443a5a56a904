"""Self-consistency against sums written out, and properties that any fusion must have."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.answer_parser import Ranking
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.rank.self_consistency import fuse, self_consistent
from r2rec_jax.rollout.parsed_completion import ParsedCompletion

UNREADABLE = Ranking([], False)
orders = st.lists(st.permutations(range(6)).map(lambda o: Ranking(list(o), True)), min_size=1, max_size=5)


def listed(*places) -> Ranking:
    return Ranking(list(places), None not in places and len(places) == 3)


def test_sums_by_hand():
    # 0: 1/61 + 1/62; 1: 1/62 + 1/61 + 1/63; 2: 1/63; 3: 1/62
    answers = [listed(0, 1, 2), listed(1, 0), listed(None, 3, 1), UNREADABLE]
    assert fuse(answers, 4, 3) == Ranking([1, 0, 3], True)
    assert fuse(answers, 4, 4) == Ranking([1, 0, 3, 2], True)
    assert fuse(answers, 9, 5) == Ranking([1, 0, 3, 2], False)  # nobody named a fifth
    assert fuse([UNREADABLE, Ranking([None, None], False)], 4, 3) == UNREADABLE
    assert fuse([listed(2, 1), listed(1, 2)], 4, 2) == Ranking([1, 2], True)  # a tie: candidates' order


@given(orders, st.integers(1, 6))
def test_alike_stays_and_order_of_samples_does_not_matter(answers, places):
    (first, *_), fused = answers, fuse(answers, 6, places)
    assert fuse([first] * 4, 6, places).places == first.places[:places]
    assert fuse(answers[::-1], 6, places) == fused
    assert fuse([*answers, UNREADABLE], 6, places) == fused
    assert len(set(fused.places)) == len(fused.places) == places


@given(orders)
def test_sums_by_brute_force(answers):
    def earned(k):
        return sum(1 / (60 + 1 + one.places.index(k)) for one in answers)

    found = [earned(k) for k in fuse(answers, 6, 6).places]
    assert found == pytest.approx(sorted(found, reverse=True))


def judged(reasoning: str, *places, truth=30) -> ParsedCompletion:
    record = RankingRecord(7, {}, [], [], np.array([40, 10, 30, 20], np.int32), np.ones(4, int), truth)
    prompt = Prompt(record, "", np.array([], np.int32), ["A", "B", "C", "D"])
    return ParsedCompletion(prompt, reasoning, "", listed(*places), 0, 0, 1, False)


def test_the_reasoning_is_that_of_the_nearest_sample():
    samples = [judged("far", 3, 0, 2), judged("near", 2, 1, 0), judged("nearer", 2, 0, 1), judged("none")]
    found = self_consistent(samples, 3)
    assert found.ranking == Ranking([2, 0, 1], True)
    assert (found.reasoning, found.truth_rank) == ("nearer", 1)
    assert self_consistent(samples[::-1], 3) == found
    lost = judged("first")
    assert self_consistent([lost, judged("second")], 3) == lost


def test_an_answer_that_breaks_the_form_has_no_voice_but_in_the_lenient_rank():
    broken = dataclasses.replace(judged("broken", 2, 0, 1), ranking=Ranking([2, 0, 1], False))
    found = self_consistent([broken, broken, judged("whole", 0, 2, 1)], 3)
    assert (found.ranking.places, found.truth_rank, found.lenient_rank) == ([0, 2, 1], 2, 1)
    assert self_consistent([broken, broken], 3).truth_rank == 0
