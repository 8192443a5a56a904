"""Traces of logs with other ratings than 1 to 5: written, validated and checked on the data's own scale."""

import pytest
from ml_collections import ConfigDict

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.rating_scale import COUNTS, NONE, STARS, Scale
from r2rec_jax.prompts.ranking_prompt import make_record
from r2rec_jax.prompts.wording import wording_of
from r2rec_jax.teachers.facts import FactChecker
from r2rec_jax.teachers.mentions import Ratings
from r2rec_jax.teachers.question import Question
from r2rec_jax.teachers.template import ranking_trace, rating_trace
from r2rec_jax.teachers.validator import Trace, Validator


@pytest.mark.parametrize("name", ["movies", "mini"])
def test_on_every_scale_the_template_passes_the_validator_and_the_fact_checker(scaled, chat, name):
    words, graph, catalog = wording_of(name, scaled), build_graph(scaled), scaled.catalog
    config = ConfigDict({"answer": "titles", "places": 3, "reasoning": True})
    validator, checker = Validator(catalog, words, chat, config, 1000), FactChecker(catalog, words)
    for user in scaled.split.users["sft"].tolist():
        record = make_record(scaled, graph, user, chains=3, likes=5, seed=1)
        question = Question("ranking", "", record, None, 0, 0)
        reasoning, order = ranking_trace(record, catalog, words, 3, "titles")
        assert validator.fault(question, Trace(reasoning, order)) is None
        lines = reasoning.split("\n")
        assert validator.fault(question, Trace("\n".join(lines[1:]), order)) in ("hop_missing", "hop_order")
        verdicts = {one.verdict for one in checker.check(question, reasoning)}
        assert "supported" in verdicts and "unsupported" not in verdicts
        if words.scale.kind == STARS:
            for chain in record.chains:
                question = Question("rating", "", record, chain, 0, 0)
                reasoning, answer = rating_trace(chain, catalog, words)
                assert validator.fault(question, Trace(reasoning, answer)) is None
                early = f"{reasoning}\nThe rating should be {chain.r01:g}."
                assert validator.fault(question, Trace(early, answer)) == "answer_early"


def test_a_like_is_what_the_scale_calls_one(scaled):
    """An item of a chain speaks for its genre from the first rating above the threshold on."""
    words, log = wording_of("movies", scaled), scaled.interactions
    likes = log.rating > scaled.split.like_above
    assert likes.sum() > 0 and [words.is_like(rating) for rating in log.rating.tolist()] == likes.tolist()
    if words.scale.kind == STARS:
        assert words.is_like(words.liked) and not words.is_like(words.liked - words.scale.step)


@pytest.mark.parametrize(
    "scale, text, expected",
    [
        (Scale(STARS, 2, 10, 2), "gave it a rating of 10, out of 10", [10]),
        (Scale(STARS, 2, 10, 2), "from 2 (worst) to 10 (best), rated it eight", [8]),
        (Scale(STARS, 2, 10, 2), "2 points lower than the 6 of statement 10", [6]),
        (Scale(STARS, 1, 10, 1), "rated it ten, a 9 for the other; 8/10 in all", [10, 9, 8]),
        (Scale(STARS, 0, 100, 1), "gave it a rating of 85, 15 points more", [85]),
        (Scale(STARS, 0.5, 5, 0.5), "gave it a 0.5 and that a 4.5", [0.5, 4.5]),
        (Scale(COUNTS, 1, 99, 1), "played it once, that twice, the other 12 times, in 1995", [1, 2, 12]),
        (Scale(NONE, 1, 1, 1), "bought 2 of them", []),
    ],
)
def test_ratings_are_read_on_their_scale(scale, text, expected):
    assert Ratings(scale)(text) == expected
