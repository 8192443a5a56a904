"""Text tables: what a terminal shows of them, whatever the cells hold."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.runtime.text_table import text_table


def columns_of(text: str) -> int:
    """Columns that a terminal takes, by Unicode's widths."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def test_columns_are_aligned():
    rows = [("a", 1, "x"), ("  longer", "12,345", ""), ("", "", "y")]
    assert text_table(rows, ("name", "number", "note"), align="lrl", title="Table").splitlines() == [
        "Table",
        "name      number  note",
        "a              1  x",
        "  longer  12,345",
        "                  y",
    ]
    assert text_table([("a", 1), ("bc", 22)], align="rl") == " a  1\nbc  22"
    assert text_table([("a", 1, 1), ("b", 22, 22)], align="lr") == "a   1   1\nb  22  22"
    assert text_table([], ("a", "b")) == "a  b" and text_table([]) == ""


def test_wide_characters_take_two_columns():
    lines = text_table([("七人の侍", "x"), ("Ran", "x")], ("title", "x")).splitlines()
    assert {columns_of(line.rpartition("x")[0]) for line in lines} == {10}


def test_a_long_cell_is_neither_folded_nor_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    wide = text_table([("word " * 60 + "end", "b")])
    assert wide == "word " * 60 + "end  b"


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "CLICOLOR_FORCE"])
def test_the_surroundings_change_nothing(monkeypatch, variable):
    plain = text_table([("[b]a[/b]", ":smile:", "http://x 1")], ("x", "y", "z"))
    monkeypatch.setenv(variable, "1")
    assert text_table([("[b]a[/b]", ":smile:", "http://x 1")], ("x", "y", "z")) == plain
    assert plain.splitlines()[1] == "[b]a[/b]  :smile:  http://x 1"


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4))
def test_cells_from_outside_stay_one_line_of_visible_text(rows):
    text = text_table(rows, ("a", "b"), title="\x1b[2J[bold]")
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.split("\n")) == 2 + len(rows) and text.startswith("\\x1b[2J[bold]\n")


def test_uneven_rows_are_no_table():
    with pytest.raises(ValueError, match=r"rows of \[1, 2\] cells"):
        text_table([("a", "b"), ("c",)])
