"""Tables as plain text, laid out by rich: the one printer of what commands show in columns."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from r2rec_jax.runtime.errors import shown

WIDEST = 100_000  # characters of a line: a table is never folded, so a file or a pipe gets the whole of it
_ALIGN = {"l": "left", "r": "right"}


def text_table(
    rows: Iterable[Sequence[object]], columns: Sequence[str] = (), *, align: str = "l", title: str = ""
) -> str:
    """Rows as aligned text without frames or trailing spaces, the same at a terminal and in a pipe.

    Cells may come from outside: rich does not read them as markup, and what does not print is written as its
    code (`errors.shown`). Widths are those of a terminal, where a CJK character takes two columns.

    Args:
      rows: cells of each row, as many as there are columns; `str` of each is shown.
      columns: the head of each column; without it the table has no head.
      align: "l" or "r" a column; the last letter also stands for all columns after it.
      title: a line above the table.

    Raises:
      ValueError: a row has another number of cells than the others or the head.
    """
    rows = [tuple(row) for row in rows]
    lines = [tuple(columns), *rows] if columns else rows
    count = len(lines[0]) if lines else 0
    if any(len(line) != count for line in lines):
        raise ValueError(f"rows of {sorted({len(line) for line in lines})} cells do not make one table")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(columns))
    for k in range(count):
        head = Text(shown(columns[k])) if columns else ""
        table.add_column(head, justify=_ALIGN[align[min(k, len(align) - 1)]], no_wrap=True, overflow="crop")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    file = io.StringIO()
    # Nothing of the surroundings (a terminal's width, NO_COLOR, a notebook) may change the text.
    console = Console(
        file=file,
        width=WIDEST,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    )
    console.print(table)
    text = [line.rstrip() for line in file.getvalue().splitlines()]
    return "\n".join([*([shown(title)] if title else []), *text])
