"""Paper, colours, boxes and arrows of the figures."""

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

PAPER, INK, GREY, RULE = "#fbfaf7", "#22262b", "#6a6f76", "#d5d2ca"
GREEN, PALE_GREEN, ORANGE, PALE_ORANGE, BLUE, PALE_BLUE = (
    "#0f6e63", "#d6ebe7", "#b5622a", "#f6e3d5", "#3f5fa8", "#dde4f4",
)  # fmt: skip
STYLE = {
    "svg.hashsalt": "r2rec",  # the same file every time
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of `width` x `height` inches whose axes count tenths of an inch."""
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10 * width), ylim=(0, 10 * height))
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x, y, width, height, text="", face=PALE_GREEN, edge=GREEN, **style) -> None:
    """A rounded box with its lower left corner at (x, y) and text in the middle."""
    round_ = "round,pad=0,rounding_size=0.8"
    axes.add_patch(FancyBboxPatch((x, y), width, height, round_, facecolor=face, edgecolor=edge, lw=1.1))
    style = {"ha": "center", "va": "center", "linespacing": 1.35} | style
    axes.text(x + width / 2, y + height / 2, text, **style)


def arrow(axes: Axes, start, end, color=GREY, bend=0.0, both=False, dashed=False) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="<|-|>" if both else "-|>",
            mutation_scale=11,
            color=color,
            lw=1.2,
            linestyle=(0, (3, 2)) if dashed else "-",
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=0,
        )
    )
