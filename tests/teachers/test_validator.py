"""The judge against traces written by hand, each with one fault, and against the template teacher's."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.chains.chain import Chain, Link
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.prompts.wording import WORDINGS, wording
from r2rec_jax.teachers.question import Question
from r2rec_jax.teachers.template import ranking_trace, rating_trace
from r2rec_jax.teachers.validator import REASONS, Validator, read_trace

MOVIES = wording("movies")

FILMS = Catalog(
    title=["Heat", "Big Chill, The", "Big", "Fargo", "Ran", "Aliens", "Alien", "It"],
    year=np.array([1995, 1983, 1988, 1996, 1985, 1986, 1979, 1990], np.int32),
    genres=[
        ("Action",),
        ("Comedy", "Drama"),
        ("Comedy",),
        ("Crime",),
        ("Drama",),
        ("Sci-Fi",),
        ("Sci-Fi",),
        (),
    ],
    demographics=[{"age": "25-34"}, {"age": "5-9"}, {}],
)
CHAIN = Chain(user=0, r00=4.0, i0=0, r10=5.0, peer=1, r11=2.0, i1=1, r01=3.0)
RECORD = RankingRecord(
    user=0,
    demographics=FILMS.demographics[0],
    likes=[5, 2],
    chains=[CHAIN],
    candidates=np.array([6, 3, 4, 7], np.int32),
    popularity=np.array([2, 9, 2, 1]),
    truth=6,
)
RATING = Question("rating", "", RECORD, CHAIN, 0, 0)
RANKING = Question("ranking", "", RECORD, None, 0, 0)

HOPS = [
    "The viewer gave Heat (1995) [Action] a 4.",
    "Person A, aged 5-9, rated it 5 out of 5, so the two nearly agree.",
    "Person A also gave The Big Chill a 2.",
]
EXPECT = "So the viewer, who is hard to please, should like it a little more than Person A did."
OWN = "The viewer gave that film a 3."
TASTE = "The viewer liked Aliens and Big, so science fiction and comedy should fit."
ORDER = "Order: 1 > 3 > 2"


@pytest.fixture
def judge(chat):
    """judge(question, *lines) -> the fault of a trace of these lines."""

    def judge(question, *lines, max_tokens=1000, **changes):
        config = {"answer": "numbers", "places": 3, "reasoning": True} | changes
        validator = Validator(FILMS, MOVIES, chat, ConfigDict(config), max_tokens)
        return validator.fault(question, read_trace("\n".join(lines), question.task))

    return judge


def test_a_good_trace_passes(judge):
    assert judge(RATING, *HOPS, EXPECT, "Rating: 3") is None
    assert judge(RANKING, *HOPS, OWN, TASTE, ORDER) is None
    assert judge(RANKING, *HOPS[:2], TASTE, ORDER) is None
    assert judge(RANKING, TASTE, *HOPS, OWN, ORDER) is None


def test_a_candidates_number_of_any_length_is_read(judge):
    for number in ("9" * 5000, "0" * 5000 + "9" * 20, "000"):
        assert (
            judge(RANKING, *HOPS, OWN, f"Candidate {number} is not known.", TASTE, ORDER, max_tokens=9999)
            is None
        )
    assert judge(RANKING, *HOPS, OWN, "Candidate 0001 is not known.", TASTE, ORDER) in (
        "answer_early",
        "candidate_early",
    )


def test_list_marks_emphasis_and_blank_lines_are_no_fault(judge):
    numbered = [f"{k}. {line}" for k, line in enumerate([*HOPS, EXPECT], 1)]
    assert judge(RATING, *numbered, "", "**Rating: 3**") is None
    trace = read_trace("\n\n".join([*numbered, "**Rating: 3**"]), "rating")
    assert trace.reasoning.split("\n") == [*HOPS, EXPECT] and trace.answer == "Rating: 3"


RATING_FAULTS = [
    ("no_answer", [*HOPS, EXPECT]),
    ("no_answer", [*HOPS, EXPECT, "Rating: high"]),
    ("no_answer", [*HOPS, "Rating: 3", EXPECT]),
    ("empty", []),
    ("wrong_answer", [*HOPS, EXPECT, "Rating: 4"]),
    # The answer, or a guess at it, before its place.
    ("answer_early", [*HOPS, EXPECT, "Rating: 3", "Rating: 3"]),
    ("answer_early", [*HOPS, "So the viewer will give it a 3.", "Rating: 3"]),
    ("answer_early", [*HOPS, "So the viewer would probably give it three stars.", "Rating: 3"]),
    ("answer_early", [*HOPS, "The two differ, hence a 3.", "Rating: 3"]),
    ("answer_early", [*HOPS, "Something around 4 is likely.", "Rating: 3"]),
    ("answer_early", [*HOPS[:2], "Person A also gave Big Chill, The a 2 and the viewer a 3.", "Rating: 3"]),
    ("mentions_hint", [*HOPS, "The correct rating is a bit higher.", "Rating: 3"]),
    # Hops that are missing, out of order, merged, or that use later ones.
    ("hop_missing", [HOPS[0], HOPS[2], EXPECT, "Rating: 3"]),
    ("hop_missing", [HOPS[1], HOPS[2], EXPECT, "Rating: 3"]),
    ("hop_missing", [HOPS[0], HOPS[1], EXPECT, "Rating: 3"]),
    ("hop_missing", [HOPS[0], "Person A liked it as well.", HOPS[2], EXPECT, "Rating: 3"]),
    ("hop_missing", [EXPECT, "Rating: 3"]),
    ("hop_order", [HOPS[1], HOPS[0], HOPS[2], EXPECT, "Rating: 3"]),
    ("hop_order", [HOPS[0], HOPS[2], HOPS[1], EXPECT, "Rating: 3"]),
    ("hop_order", [HOPS[2], HOPS[1], HOPS[0], EXPECT, "Rating: 3"]),
    ("later_hop", ["The viewer gave Heat a 4 and Person A a 5.", HOPS[2], EXPECT, "Rating: 3"]),
    ("later_hop", [HOPS[0], "Person A gave it a 5, and The Big Chill a 2.", EXPECT, "Rating: 3"]),
    ("later_hop", [HOPS[0] + " Will Person A agree?", *HOPS[1:], EXPECT, "Rating: 3"]),
    ("later_hop", [HOPS[0], HOPS[1] + " The big chill comes next.", HOPS[2], EXPECT, "Rating: 3"]),
    ("later_hop", ["The viewer gave Heat a 4, one less than the 5 to come.", *HOPS[1:], EXPECT, "Rating: 3"]),
    # Facts that the chain does not hold.
    ("wrong_rating", ["The viewer gave Heat a 1.", *HOPS[1:], EXPECT, "Rating: 3"]),
    ("wrong_rating", [HOPS[0], "Person A gave it a 4.", HOPS[2], EXPECT, "Rating: 3"]),
    ("unknown_person", [*HOPS, "Person B would agree.", "Rating: 3"]),
]


@pytest.mark.parametrize(("reason", "lines"), RATING_FAULTS)
def test_a_rating_trace_with_one_fault(judge, reason, lines):
    assert judge(RATING, *lines) == reason


RANKING_FAULTS = [
    ("no_answer", [*HOPS, OWN, TASTE, "Order: 1 > 3"]),
    ("no_answer", [*HOPS, OWN, TASTE, "Order: 1 > 3 > 9"]),
    ("wrong_answer", [*HOPS, OWN, TASTE, "Order: 3 > 1 > 2"]),
    ("answer_early", [*HOPS, OWN, "So Alien fits.", ORDER]),
    ("answer_early", [*HOPS, OWN, "So candidate 1 fits.", ORDER]),
    ("candidate_early", [*HOPS, OWN, "So FARGO (1996) fits.", ORDER]),
    ("candidate_early", [*HOPS, OWN, "So #3 fits.", ORDER]),
    ("hop_missing", [TASTE, ORDER]),
    ("hop_order", [HOPS[1], HOPS[0], TASTE, ORDER]),
    ("hop_order", [HOPS[0], HOPS[2], HOPS[1], OWN, TASTE, ORDER]),
    ("later_hop", ["The viewer gave Heat a 4, and Person A a 5.", HOPS[2], ORDER]),
    ("later_hop", [*HOPS[:2], "Person A gave Big Chill, The a 2, the viewer a 3.", TASTE, ORDER]),
    ("wrong_rating", [HOPS[0], "Person A gave it a 1.", TASTE, ORDER]),
    ("unknown_person", [*HOPS, OWN, "Person C is alike.", ORDER]),
]


@pytest.mark.parametrize(("reason", "lines"), RANKING_FAULTS)
def test_a_ranking_trace_with_one_fault(judge, reason, lines):
    assert judge(RANKING, *lines) == reason


def test_short_and_nested_titles_are_told_apart(judge):
    """ "It" is a candidate and a word; "Alien", the truth, is inside "Aliens", a like; "Big" is a word."""
    assert judge(RANKING, *HOPS, OWN, "It shows that Aliens was a big hit.", ORDER) is None
    assert judge(RANKING, *HOPS, OWN, "It (1990) is known too.", ORDER) == "candidate_early"


def test_without_chains_a_like_must_be_told(judge):
    bare = dataclasses.replace(RANKING, record=dataclasses.replace(RECORD, chains=[]))
    assert judge(bare, TASTE, ORDER) is None
    assert judge(bare, "Something will fit.", ORDER) == "hop_missing"
    assert judge(bare, TASTE, "Person A is alike.", ORDER) == "unknown_person"


def test_without_reasoning_the_answer_stands_alone(judge):
    assert judge(RANKING, ORDER, reasoning=False) is None
    assert judge(RANKING, TASTE, ORDER, reasoning=False) == "reasoning_unasked"
    assert judge(RANKING, "Order: 2 > 3 > 1", reasoning=False) == "wrong_answer"


def test_a_trace_longer_than_its_budget_is_refused(judge):
    assert judge(RATING, *HOPS, EXPECT, "Rating: 3", max_tokens=50) == "too_long"


def test_a_longer_chain_is_walked_to_its_end(judge):
    chain = dataclasses.replace(CHAIN, more=(Link(rating=1.0, peer=2, next_rating=5.0, item=5),))
    question = dataclasses.replace(RATING, chain=chain, record=dataclasses.replace(RECORD, chains=[chain]))
    hops = [*HOPS, "Person B gave that film a 1.", "Person B also gave Aliens a 5."]
    assert judge(question, *hops, EXPECT, "Rating: 3") is None
    assert judge(question, *HOPS, EXPECT, "Rating: 3") == "hop_missing"
    assert judge(question, *HOPS, hops[4], hops[3], EXPECT, "Rating: 3") == "hop_order"
    assert judge(question, *HOPS, "Person B gave that film a 1 and Aliens a 5.", "Rating: 3") == "hop_missing"
    assert judge(question, *HOPS[:2], HOPS[2] + " Aliens comes next.", *hops[3:], "Rating: 3") == "later_hop"


@pytest.mark.parametrize("answer", ["titles", "numbers"])
@pytest.mark.parametrize("name", WORDINGS)
def test_what_the_template_teacher_writes_passes_and_its_mutants_do_not(records, dataset, chat, name, answer):
    words, catalog = wording(name), dataset.catalog
    config = ConfigDict({"answer": answer, "places": 3, "reasoning": True})
    validator = Validator(catalog, words, chat, config, 1000)

    def fault(question, *lines):
        return validator.fault(question, read_trace("\n".join(lines), question.task))

    for record in records:
        question = Question("ranking", "", record, None, 0, 0)
        reasoning, order = ranking_trace(record, catalog, words, 3, answer)
        lines = reasoning.split("\n")
        assert fault(question, *lines, order) is None
        truth = words.title(catalog, record.truth)
        assert fault(question, *lines, f"So {truth} fits.", order) == "answer_early"
        if record.chains:
            assert fault(question, lines[1], lines[0], *lines[2:], order) in ("hop_order", "wrong_rating")
            assert fault(question, *lines[1:], order) in ("hop_missing", "hop_order")
        for chain in record.chains[:2]:
            question = Question("rating", "", record, chain, 0, 0)
            reasoning, rating = rating_trace(chain, catalog, words)
            lines = reasoning.split("\n")
            assert fault(question, *lines, rating) is None
            assert fault(question, lines[1], lines[0], *lines[2:], rating) == "hop_order"
            assert fault(question, lines[0], lines[2], lines[1], lines[3], rating) == "hop_order"
            assert fault(question, *lines, f"It will be a {chain.r01:g}.", rating) == "answer_early"
            assert fault(question, *lines, f"Rating: {chain.r01 % 5 + 1:g}") == "wrong_answer"
            merged = f"{lines[0][:-1]}; {lines[1]}"
            assert fault(question, merged, *lines[2:], rating) == "later_hop"


def test_every_reason_can_be_told_to_a_teacher():
    told = {reason for reason, _ in RATING_FAULTS + RANKING_FAULTS}
    assert told <= set(REASONS)


def test_an_answer_that_repeats_a_known_rating_is_early_all_the_same(judge):
    """The viewer's second rating equals the first, so that its number alone tells nothing."""
    chain = dataclasses.replace(CHAIN, r01=4.0)
    question = dataclasses.replace(RATING, chain=chain)
    assert judge(question, *HOPS, EXPECT, "Rating: 4") is None
    leaky = HOPS[2][:-1] + ", the viewer a 4."
    assert judge(question, *HOPS[:2], leaky, "Rating: 4") == "answer_early"


def test_a_shown_item_with_a_candidates_name_is_no_candidate(chat):
    catalog = dataclasses.replace(FILMS, title=[*FILMS.title[:6], "Big", "It"], year=FILMS.year * 0 + 1988)
    config = ConfigDict({"answer": "numbers", "places": 3, "reasoning": True})
    trace = read_trace(
        "\n".join(["The viewer gave Heat (1988) a 4.", HOPS[1], "The viewer liked Big (1988).", ORDER]),
        "ranking",
    )
    heat = dataclasses.replace(CHAIN, r11=1.0)
    question = dataclasses.replace(RANKING, record=dataclasses.replace(RECORD, chains=[heat]))
    assert Validator(catalog, MOVIES, chat, config, 1000).fault(question, trace) is None
    unliked = dataclasses.replace(question.record, likes=[5])
    question = dataclasses.replace(question, record=unliked)
    assert Validator(catalog, MOVIES, chat, config, 1000).fault(question, trace) == "answer_early"


def test_two_chains_that_share_a_film_may_both_be_told(judge):
    other = Chain(user=0, r00=5.0, i0=2, r10=1.0, peer=2, r11=3.0, i1=0, r01=4.0)
    question = dataclasses.replace(RANKING, record=dataclasses.replace(RECORD, chains=[CHAIN, other]))
    told = ["The viewer gave Big (1988) a 5.", "Person B gave it a 1.", "Person B also gave Heat a 3."]
    told += ["The viewer gave Heat a 4.", "Big (1988) is liked, with a 5."]
    assert judge(question, *told, *HOPS, OWN, ORDER) is None
    assert judge(question, *told[1:], *HOPS, OWN, ORDER) == "hop_order"


def test_a_recap_counts_word_for_word_alone(chat):
    """It names a companion whose chain is not told, which is a fault in any other statement."""
    other = Chain(user=0, r00=2.0, i0=4, r10=3.0, peer=2, r11=3.0, i1=2, r01=5.0)
    left = {"candidates": RECORD.candidates[[0, 1, 3]], "popularity": RECORD.popularity[[0, 1, 3]]}
    record = dataclasses.replace(RECORD, chains=[other, CHAIN], **left)
    validator = Validator(
        FILMS, wording("mini"), chat, ConfigDict({"answer": "titles", "places": 1, "reasoning": True}), 1000
    )
    hops = ["Kai gave Heat (1995) a 4.", "Lea gave it a 5.", "Lea gave Big Chill, The (1983) a 2."]
    recap = "Kai saw with Jo Ran (1985) Big (1988) with Lea Heat (1995) Big Chill, The (1983)."

    def fault(*lines):
        question = dataclasses.replace(RANKING, record=record)
        return validator.fault(question, read_trace("\n".join([*lines, "Order: Alien (1979)"]), "ranking"))

    assert fault(*hops, recap) is None
    assert fault(*hops, recap.replace("Jo", "Max")) == "unknown_person"
    for changed in (recap.replace("Ran (1985)", "Aliens (1986)"), recap.replace(" Big (1988)", "")):
        assert fault(*hops, changed) == "hop_missing"
    assert fault(recap) == "hop_missing"  # no chain is told
