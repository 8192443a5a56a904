import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.prompts.answer_parser import Ranking, count_statements, parse_ranking, rank_of

# A line of candidates, then answers: what is said by "titles" or "numbers" about which candidates, the places
# asked for, the ranking that it is (null: off the list), whether it is valid, and why it is here.
CORPUS = Path(__file__).parent / "awkward_answers.jsonl"
CANDIDATES, *ANSWERS = map(json.loads, CORPUS.read_text(encoding="utf-8").split("\n")[:-1])
WORDS = CANDIDATES["words"]


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: f"{case['by']}: {case['why']}")
def test_awkward_answers(case):
    titles = CANDIDATES[case["candidates"]]
    found = parse_ranking(case["said"], titles, answer=case["by"], places=case["places"])
    assert [None if k is None else titles[k] for k in found.places] == case["ranking"]
    assert found.valid == case["valid"]


VHS, DISC = "Alien [VHS]", "Alien [Blu-ray]"


@pytest.mark.parametrize(
    "said, titles, meant",
    [
        (DISC, [VHS, DISC], 1),
        ("alien [blu-ray].", [VHS, DISC], 1),
        ("Alien", [VHS, DISC], None),
        ("Alien", [VHS, "Heat"], 0),
        ("Alien [Horror]", ["Alien", "Heat"], 0),
        ("b", ["B", "b", "A"], 1),
        ("'b'", ["B", "b", "A"], None),
        ("Heat (1995)", ["Heat (1986)", "Heat (1995)"], 1),
        ("Heat", ["Heat (1986)", "Heat (1995)"], None),
        ("Heat (1995)", ["Heat", "Heat (1986)"], 0),
        ("Heat (version 2) (1995)", ["Heat (version 1) (1995)", "Heat (version 2) (1995)"], 1),
        ("Heat (1995)", ["Heat (version 1) (1995)", "Heat (version 2) (1995)"], None),
    ],
)
def test_an_exact_name_counts_first_and_a_lenient_one_where_it_is_the_only_one(said, titles, meant):
    found = parse_ranking(f"Order: {said}", titles, answer="titles", places=1)
    assert found == Ranking([meant], meant is not None)


def test_nothing_is_not_a_title_even_where_a_title_is_next_to_nothing():
    found = parse_ranking("Order: > A", ['"', "A"], answer="titles", places=2)
    assert found == Ranking([None, 1], False)


@given(order=st.permutations(range(len(WORDS))), answer=st.sampled_from(["titles", "numbers"]))
def test_every_ranking_reads_back(order, answer):
    named = [WORDS[k] if answer == "titles" else str(k + 1) for k in order]
    text = f"Here it is.\nOrder: {' > '.join(named)}"
    for places in range(1, len(order) + 1):
        found = parse_ranking(text, WORDS, answer=answer, places=places)
        assert found == Ranking(order[:places], places == len(order))
        assert [rank_of(found, k) for k in order[:places]] == list(range(1, places + 1))
        assert all(rank_of(found, k) == 0 for k in order[places:])


pieces = st.sampled_from(["a", "b", "ab", "aba", "abab", "1", "2", "3", "4", "10"])


@given(
    titles=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=5, unique=True),
    said=st.lists(pieces, min_size=1, max_size=8),
    answer=st.sampled_from(["titles", "numbers"]),
    places=st.integers(1, 6),
)
def test_as_read_by_a_slow_reader(titles, said, answer, places):
    """Titles that hold one another, numbers that begin with one another: each is read whole."""
    names = titles if answer == "titles" else [str(k + 1) for k in range(len(titles))]
    wanted = []
    for piece in said[:places]:
        if piece not in names:
            wanted.append(None)
        elif names.index(piece) not in wanted:
            wanted.append(names.index(piece))
    whole = len(said) == places and len(wanted) == places and None not in wanted
    found = parse_ranking(f"Order: {' > '.join(said)}", titles, answer=answer, places=places)
    assert found == Ranking(wanted, whole)


rough = st.lists(
    st.sampled_from(["Order:", " > ", ">", "\n", "Harbor", "comet", "3", "12", "[", "(1", "'"])
    | st.text(max_size=5),
    max_size=15,
).map("".join)


@given(text=rough | st.text(), answer=st.sampled_from(["titles", "numbers"]), places=st.integers(1, 6))
def test_any_text_parses_to_a_sane_ranking(text, answer, places):
    found = parse_ranking(text, WORDS, answer=answer, places=places)
    listed = [k for k in found.places if k is not None]
    assert len(found.places) <= places
    assert len(set(listed)) == len(listed)
    assert set(listed) <= set(range(len(WORDS)))
    if found.valid:
        assert len(listed) == places


@pytest.mark.parametrize(
    ("reasoning", "count"),
    [
        ("", 0),
        ("\n \n", 0),
        ("Kai gave Harbor a 4.", 1),
        ("Kai gave Harbor a 4.\n\n  kai gave  HARBOR a 4.\n", 1),
        ("Too short\nOkay\nbut this counts", 1),
        ("First of all.\nSecond of all.\r\nThird of all.", 3),
    ],
)
def test_statements_are_distinct_lines_of_three_words(reasoning, count):
    assert count_statements(reasoning) == count


@given(st.lists(st.text(max_size=20), max_size=8))
def test_saying_it_all_again_adds_no_statement(lines):
    once = "\n".join(lines)
    assert count_statements(once) == count_statements(once + "\n" + once) <= len(once.splitlines())
