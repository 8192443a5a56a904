"""Figures as inline SVG that takes its colours from the page.

matplotlib draws with placeholder colours, which are then replaced by CSS variables, so that one
picture serves light and dark pages. No text but tick labels is drawn: names belong in the HTML,
where they are escaped and wrap.
"""

import contextlib
import io
import math
import re
from collections.abc import Iterator, Sequence

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Placeholders: any colours that occur nowhere else.
COLOURS = ("#010203", "#010204", "#010205", "#010206", "#010207", "#010208")
_QUIET, _GRID = "#010209", "#01020a"
_VARIABLES = {colour: f"var(--series-{n})" for n, colour in enumerate(COLOURS)} | {
    _QUIET: "var(--quiet)",
    _GRID: "var(--hairline)",
}
_STYLE = {
    "svg.fonttype": "none",  # real text, in the page's font
    "svg.hashsalt": "r2rec",  # equal data give equal bytes
    "font.size": 10,
    "font.family": "sans-serif",
}


def line_figure(
    series: Sequence[Sequence[tuple[float, float]]],
    *,
    level: float | None = None,
    from_zero: bool = False,
) -> Markup:
    """Lines through (x, y) points, the n-th in the page's colour `--series-n`.

    Args:
        series: points of each line; up to 24 are marked with dots; y that is not finite is a gap.
        level: y of a dashed reference line.
        from_zero: the y axis starts at 0.

    Returns:
        An `<svg>` element, without identifiers of this machine or the time.
    """
    with _axes() as (figure, axes):
        for n, points in enumerate(series):
            xs, ys = zip(*points, strict=True) if points else ((), ())
            ys = [y if math.isfinite(y) else math.nan for y in ys]
            axes.plot(
                xs,
                ys,
                color=COLOURS[n % len(COLOURS)],
                linewidth=1.8,
                marker="o" if len(points) <= 24 else None,
                markersize=3.6,
                solid_capstyle="round",
                solid_joinstyle="round",
            )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _frame(axes, level, from_zero)
        return _for_the_page(figure)


def interval_figure(
    groups: Sequence[str], series: Sequence[Sequence[tuple[float, float, float]]], *, level: float
) -> Markup:
    """(mean, low, high) of each of `groups`, whose names are numbers or ranges; series and `level` as in
    `line_figure`. Series may differ in what they are, not in the groups."""
    with _axes() as (figure, axes):
        for n, means in enumerate(series):
            mean, low, high = zip(*means, strict=True) if means else ((), (), ())
            beside = 0.16 * (n - (len(series) - 1) / 2)  # so that intervals do not hide each other
            axes.errorbar(
                [k + beside for k in range(len(mean))],
                mean,
                # A bootstrap's interval of a rare event may leave its mean out by a rounding.
                yerr=[
                    [max(m - end, 0.0) for m, end in zip(mean, low, strict=True)],
                    [max(end - m, 0.0) for m, end in zip(mean, high, strict=True)],
                ],
                color=COLOURS[n % len(COLOURS)],
                linestyle="none",
                marker="o",
                markersize=5,
                elinewidth=1.8,
            )
        axes.set_xticks(range(len(groups)), groups)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        _frame(axes, level, from_zero=True)
        return _for_the_page(figure)


@contextlib.contextmanager
def _axes() -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 2.9), layout="tight")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def _frame(axes: Axes, level: float | None, from_zero: bool) -> None:
    if level is not None:
        axes.axhline(level, color=_QUIET, linewidth=1, dashes=(3, 3))
    if from_zero:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", color=_GRID, linewidth=1)
    axes.tick_params(length=0, pad=6, labelcolor=_QUIET)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _for_the_page(figure: Figure) -> Markup:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # inline SVG needs none
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)  # the page's own
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    return Markup(svg)  # numbers and paths that matplotlib wrote: nothing of the user's in it
