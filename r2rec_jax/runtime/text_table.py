"""Formats tables as plain text with rich; all commands print their tables with it."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from r2rec_jax.runtime.errors import shown

WIDEST = 100_000  # characters per line, so that rich never folds a table
_ALIGN = {"l": "left", "r": "right"}


def text_table(
    rows: Iterable[Sequence[object]], columns: Sequence[str] = (), *, align: str = "l", title: str = ""
) -> str:
    """Rows as aligned text without frames or trailing spaces, the same at a terminal and in a pipe.

    Cells may be untrusted: rich does not parse them as markup, and unprintable characters are escaped
    (`errors.shown`). Widths are terminal columns; a CJK character takes two.

    Args:
      rows: cells of each row, one per column; `str` of each is printed.
      columns: head of each column; without it the table has no head.
      align: "l" or "r" per column; the last letter also applies to all later columns.
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
    # The environment (terminal width, NO_COLOR, notebook) must not change the text.
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
