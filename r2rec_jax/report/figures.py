"""Draws figures as inline SVG that uses the page's colours.

matplotlib draws with placeholder colours, which are then replaced by CSS variables, so that one figure works
on light and dark pages. Figures contain no text but tick labels. All names are in the HTML, where they are
escaped and wrap.
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

# Placeholder colours that occur nowhere else.
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
        return _to_svg(figure)


def interval_figure(
    groups: Sequence[str], series: Sequence[Sequence[tuple[float, float, float]]], *, level: float
) -> Markup:
    """Plots (mean, low, high) of each series for each of `groups`, named by numbers or ranges.

    All series have the same groups. `level`: see `line_figure`.
    """
    with _axes() as (figure, axes):
        for n, means in enumerate(series):
            mean, low, high = zip(*means, strict=True) if means else ((), (), ())
            offset = 0.16 * (n - (len(series) - 1) / 2)  # so that intervals do not hide each other
            axes.errorbar(
                [k + offset for k in range(len(mean))],
                mean,
                # A bootstrap interval of a rare event may miss the mean by a rounding error.
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
        return _to_svg(figure)


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


def _to_svg(figure: Figure) -> Markup:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # inline SVG needs no namespace
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)  # the page sets the font
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    return Markup(svg)  # safe: matplotlib's numbers and paths only, no user text
