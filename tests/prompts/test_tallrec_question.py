"""The Yes/No question in words."""

from r2rec_jax.prompts.tallrec_question import history_text, question_text
from r2rec_jax.prompts.wording import wording
from tests.prompts.test_ranking_prompt import FILMS

BOOKS = wording("books", dated=False)
COMPACT = wording("compact")
MOVIES = wording("movies")

HISTORY = [(0, 4.0), (1, 2.5), (2, 5.0), (3, 3.0)]


def test_the_question_reads_so():
    assert history_text(HISTORY, FILMS, MOVIES) == (
        "Films the viewer liked most recently, oldest first:\n"
        "- Heat (1995) [Action, Crime]\n- Big (1988) [Comedy]\n\n"
        "Films the viewer rated most recently and did not like, oldest first:\n"
        "- Emma (1996) [Romance]\n- Fargo (1996) [Crime, Drama]\n\n"
    )
    assert question_text(4, FILMS, MOVIES) == (
        "Will the viewer like Ran (1985) [Drama]? Answer Yes or No, and nothing else."
    )
    assert history_text(HISTORY, FILMS, COMPACT) == (
        "Kai is fond of Heat, Big.\nKai is less fond of Emma, Fargo.\n"
    )
    assert question_text(5, FILMS, BOOKS).startswith("Will the reader like Shine?")


def test_a_part_with_nothing_in_it_is_not_there():
    assert "did not like" not in history_text(HISTORY[:1], FILMS, MOVIES)
    assert "viewer liked" not in history_text(HISTORY[1:2], FILMS, MOVIES)
    assert history_text([], FILMS, MOVIES) == ""
