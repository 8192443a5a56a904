import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.runtime.errors import UserError, shown


@given(st.text())
def test_what_is_shown_is_one_line_that_prints(text):
    line = shown(text)
    assert line.isprintable() and not {unicodedata.category(c) for c in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert shown(line) == line
    if text.isprintable():
        assert line == text


def test_what_does_not_print_is_told_by_its_code():
    assert shown("a\nb\x1b[2J\u202e\ud800é") == "a b\\x1b[2J\\u202e\\ud800é"


def test_a_long_text_keeps_both_ends():
    cut = shown("a" * 5000 + "b" * 5000, 20)
    assert cut == "a" * 10 + " ... " + "b" * 10 and shown(cut, 20) == cut


def test_a_users_error_is_one_line_whatever_it_quotes():
    assert str(UserError("row 1 holds 'a\nb\x1b[2J'")) == "row 1 holds 'a b\\x1b[2J'"
