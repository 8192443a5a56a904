import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.prompts.answer import Ranking, count_statements, parse_ranking, rank_of

FILMS = ["Alien (1979)", "Aliens (1986)", "Usual Suspects, The (1995)", "Hamlet (1990)"]
FILMS += ["Hamlet (1996)", "M", "E.T. the Extra-Terrestrial (1982)", "1984 (1984)"]
WORDS = ["Harbor", "Lantern", "Comet", "Ember", "Willow"]

TITLE_ANSWERS = [
    # answer text, places, valid
    ("Order: Harbor > Comet > Ember", [0, 2, 3], True),
    ("order:Harbor>Comet>Ember", [0, 2, 3], True),
    ("\n\n  ORDER:   harbor >  COMET>ember  ", [0, 2, 3], True),
    ("Order: \"Harbor\" > “Comet” > 'Ember'.", [0, 2, 3], True),
    ("Order: Harbor (1990) > Comet [drama] > Ember (2001) [drama, war]", [0, 2, 3], True),
    (
        "Let me see.\nOrder: Harbor > Comet > Ember\nOrder: Ember > Comet > Harbor",
        [0, 2, 3],
        True,
    ),
    ("Order: Harbor > Comet > Ember\r\nThat is all.", [0, 2, 3], True),
    # too few or too many
    ("Order: Harbor > Comet", [0, 2], False),
    ("Order: Harbor", [0], False),
    ("Order: Harbor > Comet > Ember > Willow", [0, 2, 3], False),
    ("Order: Harbor > Comet > Ember >", [0, 2, 3], False),
    # off the list: the place stays taken
    ("Order: Atlantis > Comet > Ember", [None, 2, 3], False),
    ("Order: Harbors > Comet > Ember", [None, 2, 3], False),
    ("Order: Har > Comet > Ember", [None, 2, 3], False),
    ("Order: Harbor, Comet, Ember", [None], False),
    ("Order: 1 > 3 > 4", [None, None, None], False),
    ("Order: > Harbor > Comet", [None, 0, 2], False),
    ("Order: > >", [None, None, None], False),
    ('Order: [drama] > (1990) > ""', [None, None, None], False),
    # mentioned again: the first counts, what follows moves up
    ("Order: Harbor > Harbor > Comet", [0, 2], False),
    ("Order: Harbor > Comet > harbor (1990)", [0, 2], False),
    # no ranking
    ("Order:", [], False),
    ("Order:\nHarbor > Comet > Ember", [], False),
    ("Harbor > Comet > Ember", [], False),
    ("My Order: Harbor > Comet > Ember", [], False),
    ("**Order:** Harbor > Comet > Ember", [], False),
    ("Ranking: Harbor > Comet > Ember", [], False),
    ("", [], False),
    (None, [], False),
]


@pytest.mark.parametrize(("text", "places", "valid"), TITLE_ANSWERS)
def test_awkward_answers_by_title(text, places, valid):
    assert parse_ranking(text, WORDS, answer="titles", places=3) == Ranking(places, valid)


NUMBER_ANSWERS = [
    ("Order: 2 > 1 > 3", [1, 0, 2], True),
    ("Order: [2] > (1) > 3.", [1, 0, 2], True),
    ("order: 2.>1.>03", [1, 0, 2], True),
    ("Order: 0 > 1 > 6", [None, 0, None], False),
    ("Order: -1 > 1 > +2", [None, 0, None], False),
    ("Order: 1.5 > 1 > 2nd", [None, 0, None], False),
    ("Order: Harbor > 1 > 2. Lantern", [None, 0, None], False),
    ("Order: ² > ١ > １", [None, None, None], False),
    (f"Order: {'9' * 9000} > 1 > 2", [None, 0, 1], False),
    ("Order: 1 > 1 > 1", [0], False),
    ("Order: 1 2 3", [None], False),
]


@pytest.mark.parametrize(("text", "places", "valid"), NUMBER_ANSWERS)
def test_awkward_answers_by_number(text, places, valid):
    assert parse_ranking(text, WORDS, answer="numbers", places=3) == Ranking(places, valid)


FILM_PIECES = [
    ("Alien", 0),
    ("alien (1979)", 0),
    ("Aliens", 1),
    ("Alien (1986)", None),
    ("Alien (1979) [Horror, Sci-Fi]", 0),
    ("The Usual Suspects", None),
    ("usual  suspects, the", 2),
    ("Hamlet", 3),
    ("Hamlet (1990)", 3),
    ("Hamlet (1996)", 4),
    ("Hamlet (2000)", None),
    ("M (1931)", 5),
    ("e.t. the extra-terrestrial", 6),
    ("1984", 7),
    ("(1984)", None),
]


@pytest.mark.parametrize(("piece", "index"), FILM_PIECES)
def test_titles_are_compared_whole_and_with_their_years(piece, index):
    found = parse_ranking(f"Order: {piece}", FILMS, answer="titles", places=1)
    assert found == Ranking([index], index is not None)


def test_of_equal_titles_the_first_is_meant():
    found = parse_ranking("Order: b > A", ["A", "B", "b", "B"], answer="titles", places=2)
    assert found == Ranking([1, 0], True)


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
