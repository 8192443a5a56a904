"""Draws the figures of README.md and docs/ as SVG: `python -m docs.figures.make_figures`, or `make docs`.

The numbers of mini.svg come from the table in docs/results.md. The other figures hold no measurement, apart
from the chain of chain.svg, which is copied from a quickstart run (see README.md).
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from docs.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_ORANGE,
    PAPER,
    RULE,
    STYLE,
    arrow,
    box,
    canvas,
)  # fmt: skip

FOLDER = Path(__file__).parent


def chain() -> Figure:
    """One interaction chain, the first of user 1294 of the quickstart."""
    figure, axes = canvas(8, 2.9)
    axes.text(2, 26, "An interaction chain", fontsize=12, weight="bold", va="center")
    places = {"Kai": (7.5, 12.5), "Earth": (26.5, 20), "Jo": (45.5, 12.5), "Museum": (26.5, 5)}
    edges = [("Kai", "Earth", 5), ("Jo", "Earth", 5), ("Jo", "Museum", 4), ("Kai", "Museum", 5)]
    for person, item, rating in edges:
        (x0, y0), (x1, y1) = places[person], places[item]
        axes.plot([x0, x1], [y0, y1], color=GREY, lw=1.6, zorder=0)
        x, y = 0.45 * x0 + 0.55 * x1, 0.45 * y0 + 0.55 * y1
        y += 1.9 if item == "Earth" else -1.9
        side = "left" if person == "Jo" else "right"
        axes.text(x, y, f"rated {rating}", ha=side, va="center", fontsize=9.5)
    for name, note in (("Kai", "the user"), ("Jo", "a companion")):
        x, y = places[name]
        box(axes, x - 5.5, y - 2.6, 11, 5.2, f"{name}\n{note}", PALE_BLUE, BLUE, fontsize=9.5)
    for name in ("Earth", "Museum"):
        x, y = places[name]
        box(axes, x - 5.5, y - 2.2, 11, 4.4, f"{name}\nromance", fontsize=9.5)
    axes.text(56, 20.5, "in the prompt", color=GREY, va="center")
    axes.text(56, 17.5, "Kai 5 Earth 5 Jo 4 Museum 5 Kai", va="center", family="DejaVu Sans Mono", fontsize=9)
    axes.text(56, 12, "The companion rated both items\ntoo, so the path closes at the user.\n"
              "The held-out item and the other\ncandidates never appear in a chain.",
              va="top", color=GREY, fontsize=9, linespacing=1.5)  # fmt: skip
    return figure


def data_flow() -> Figure:
    """The stages of launch.reproduce, with the files that each hands to the next."""
    figure, axes = canvas(9, 3.7)
    axes.text(2, 34, "From ratings to a report", fontsize=12, weight="bold", va="center")
    top, low, width, height = 19, 5, 13, 6.5
    stages = [(2, "prepare"), (20, "annotate"), (38, "train: SFT"), (56, "train: GRPO"), (74, "eval")]
    files = ["manifest.json\n*.npy", "traces.jsonl", "checkpoints/", "checkpoints/"]
    for x, name in stages:
        box(axes, x, top, width, height, name, weight="bold")
    for (x, _), text in zip(stages, files, strict=False):
        arrow(axes, (x + width + 0.3, top + height / 2), (x + 17.7, top + height / 2))
        axes.text(
            x + width + 2.5, top + height + 0.8, text, ha="center", va="bottom", fontsize=7.5, color=GREY
        )
    box(axes, 38, low, width, height, "baselines", PALE_BLUE, BLUE, weight="bold")
    box(axes, 74, low, width, height, "report", PALE_ORANGE, ORANGE, weight="bold")
    arrow(axes, (8.5, top - 0.3), (37.7, low + height / 2), bend=0.18)
    axes.text(9, 9.2, "the same frozen candidates", fontsize=8.5, color=GREY, ha="left", va="center")
    arrow(axes, (51.3, low + height / 2), (73.7, low + height / 2))
    axes.text(
        62.5,
        low + height / 2 + 0.7,
        "users.jsonl, metrics.json",
        fontsize=7.5,
        color=GREY,
        ha="center",
        va="bottom",
    )
    arrow(axes, (80.5, top - 0.3), (80.5, low + height + 0.3))
    axes.text(81.5, 15.2, "users.jsonl\nmetrics.json", fontsize=7.5, color=GREY, va="center")
    for x, text in ((8.5, "rating log\nand titles"),):
        axes.text(x, top + height + 5.4, text, ha="center", va="center", fontsize=8.5, color=GREY)
        arrow(axes, (x, top + height + 3.5), (x, top + height + 0.3))
    axes.text(80.5, 2.2, "report.html", ha="center", va="center", fontsize=8.5, color=GREY)
    return figure


def grpo_step() -> Figure:
    """One GRPO step in three lanes; widths are not to scale."""
    figure, axes = canvas(10, 4.7)
    axes.text(2, 44, "One GRPO step", fontsize=12, weight="bold", va="center")
    axes.text(
        98, 44, "time runs to the right, not to scale", fontsize=8.5, color=GREY, ha="right", va="center"
    )
    lanes = {"worker\nprocesses": 28, "host": 16.5, "device": 5}
    for name, y in lanes.items():
        axes.add_patch(Rectangle((12, y - 0.8), 86, 9.6, facecolor="#f3f0e9", edgecolor="none", zorder=0.5))
        axes.text(10.5, y + 4, name, ha="right", va="center", weight="bold")
    workers, host, device = lanes.values()
    stages = [(12.5, "sample"), (49, "reward"), (56.9, "advantages"), (68.5, "batch"), (77.9, "update")]
    for x, name in stages:
        axes.text(x, 40.3, name, color=ORANGE, weight="bold", va="center")
        axes.plot([x - 0.6, x - 0.6], [4, 41.5], color=ORANGE, lw=0.8, ls=(0, (2, 3)), zorder=0.9)
    box(axes, 13, workers, 12, 8, "chains, prompts,\ntokens of the\nnext steps", PALE_BLUE, BLUE, fontsize=8)
    box(
        axes,
        33,
        workers,
        22.8,
        8,
        "reward functions:\none completion at a time,\nwith a timeout",
        PALE_BLUE,
        BLUE,
        fontsize=8,
    )
    box(axes, 13, host, 9, 8, "pad the\nprompts", fontsize=8.5)
    box(
        axes,
        25,
        host,
        22.5,
        8,
        "between chunks: note tokens, hand\nfinished groups to the reward,\nrefill free slots",
        fontsize=8,
    )
    box(axes, 48.9, host, 6.7, 8, "wait for\nthe last", fontsize=8)
    box(axes, 57.4, host, 9.4, 8, "compare\nwithin groups", fontsize=8)
    box(axes, 68.7, host, 7.6, 8, "mask,\nshard", fontsize=8.5)
    box(axes, 78.2, host, 19.3, 8, "write the metrics of the\nstep before, samples.jsonl", fontsize=8)
    box(axes, 13, device, 9, 8, "copy the\nweights", PALE_ORANGE, ORANGE, fontsize=8.5)
    box(axes, 22.8, device, 6.6, 8, "prefill", PALE_ORANGE, ORANGE, fontsize=8.5)
    for k in range(3):
        box(axes, 30.2 + 6 * k, device, 5.4, 8, "decode\nchunk", PALE_ORANGE, ORANGE, fontsize=7.5)
    box(axes, 78.2, device, 5.8, 8, "refer-\nence", PALE_ORANGE, ORANGE, fontsize=8)
    box(axes, 84.6, device, 6.6, 8, "loss and\ngradient", PALE_ORANGE, ORANGE, fontsize=8)
    box(axes, 91.7, device, 5.8, 8, "opti-\nmizer", PALE_ORANGE, ORANGE, fontsize=8)
    arrow(axes, (17, workers - 0.2), (17, host + 8.3))
    for k in range(3):
        arrow(axes, (33 + 6 * k, device + 8.2), (33 + 6 * k, host - 0.2), both=True)
    arrow(axes, (41, host + 8.2), (41, workers - 0.2))
    arrow(axes, (52.7, workers - 0.2), (52.7, host + 8.3))
    arrow(axes, (72.5, host - 0.2), (78, device + 6), bend=0.15)
    return figure


def shared_prefix() -> Figure:
    """B = 2 prompts, G = 4 rows each: what is computed, repeated and shared."""
    figure, axes = canvas(9, 3.6)
    P, R, h, gap = 22, 9, 1.9, 0.5
    axes.text(2, 33, "A prompt is computed once for its group", fontsize=12, weight="bold", va="center")
    axes.text(2, 28.6, "repeated: B · G · (P + R) tokens", color=GREY, va="center")
    axes.text(47, 28.6, "shared: B · (P + G · R) tokens", color=GREY, va="center")
    for b in range(2):
        y = 24.6 - 12 * b
        for g in range(4):
            row = y - g * (h + gap)
            axes.add_patch(Rectangle((2, row), P, h, facecolor=PALE_BLUE, edgecolor=BLUE, lw=0.8))
            axes.add_patch(Rectangle((2 + P, row), R, h, facecolor=PALE_GREEN, edgecolor=GREEN, lw=0.8))
            axes.add_patch(Rectangle((47 + P + 2, row), R, h, facecolor=PALE_GREEN, edgecolor=GREEN, lw=0.8))
        middle = y - 1.5 * (h + gap)
        axes.add_patch(Rectangle((47, middle), P, h, facecolor=PALE_BLUE, edgecolor=BLUE, lw=0.8))
        axes.text(
            47 + P / 2, middle + h / 2, f"prompt {b + 1}: P tokens", ha="center", va="center", fontsize=8.5
        )
        axes.text(81.5, middle + h / 2, "G rows of\nR tokens", va="center", fontsize=8.5, color=GREY)
        for g in range(4):
            row = y - g * (h + gap) + h / 2
            axes.plot([47 + P, 47 + P + 2], [middle + h / 2, row], color=GREY, lw=0.9)
    note = "The rollout reads the shared keys and values. In the update, gradients flow back through them."
    axes.text(2, 3, note, fontsize=9, color=GREY, va="center")
    return figure


def mesh() -> Figure:
    """What each axis of the mesh splits, on eight devices: data=2, fsdp=2, tensor=2."""
    figure, axes = canvas(9, 4.0)
    axes.text(2, 37, "The device mesh: data=2, fsdp=2, tensor=2", fontsize=12, weight="bold", va="center")
    for d in range(2):
        for f in range(2):
            for t in range(2):
                x, y = 9 + 20 * d + 9 * t, 20 - 11 * f
                box(axes, x, y, 8.4, 8.6, f"device\n{4 * d + 2 * f + t}", PALE_GREEN, GREEN, fontsize=8.5)
        axes.text(17.7 + 20 * d, 30.5, f"data {d}", ha="center", color=BLUE, weight="bold")
    for f in range(2):
        axes.text(7.5, 24 - 11 * f, f"fsdp {f}", ha="right", va="center", color=ORANGE, weight="bold")
    for d in range(2):
        for t in range(2):
            axes.text(
                13.2 + 20 * d + 9 * t, 6.6, f"tensor {t}", ha="center", va="center", fontsize=8.5, color=GREEN
            )
    notes = [
        (
            "data",
            BLUE,
            "splits the rows of a batch. Weights are whole on each.\nAn update sums the adapter's gradients.",
        ),
        (
            "fsdp",
            ORANGE,
            "splits rows too, and weights along the model dimension.\nOne layer is gathered at a time.",
        ),
        ("tensor", GREEN, "splits heads, feed-forward and vocabulary.\nA layer sums its output twice."),
    ]
    for k, (name, color, text) in enumerate(notes):
        y = 27 - 9.5 * k
        axes.text(50, y, name, color=color, weight="bold", va="center")
        axes.text(50, y - 1.4, text, va="top", fontsize=8.8, color=INK, linespacing=1.4)
    return figure


def tables(page: Path, heading: str = "") -> list[list[dict[str, str]]]:
    """The tables of a page, or of its section `heading`: each a list of rows, cell text by column."""
    text = page.read_text(encoding="utf-8")
    if heading:
        text = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        columns, _, *rows = (
            [cell.strip(" *") for cell in line.strip("|").split("|")] for line in block.splitlines()
        )
        found.append([dict(zip(columns, row, strict=True)) for row in rows])
    return found


def rows_of(heading: str) -> list[dict[str, str]]:
    """The first table in a section of docs/results.md."""
    return tables(FOLDER.parent / "results.md", heading)[0]


def mini() -> Figure:
    """R2Rec-mini and what it is compared with: HR@1 with 95% intervals."""
    wanted = {
        "Popularity": GREY,
        "Item-kNN": GREY,
        "EASE^R": GREY,
        "SASRec, full softmax": BLUE,
        "GRPO without SFT": ORANGE,
        "SFT without GRPO": ORANGE,
        "R2Rec-mini (SFT + GRPO)": GREEN,
    }
    rows = {row["system"]: row for row in rows_of("R2Rec-mini on MovieLens-1M")}
    figure = plt.figure(figsize=(8, 3.4))
    axes = figure.add_axes((0.27, 0.15, 0.69, 0.70))
    for k, (name, color) in enumerate(reversed(wanted.items())):
        value = float(rows[name]["HR@1"])
        low, high = map(float, rows[name]["95% interval"].split("-"))
        axes.plot([low, high], [k, k], color=color, lw=2.4, solid_capstyle="butt")
        axes.plot(value, k, "o", color=color, ms=6)
        axes.text(high + 0.012, k, f"{value:.3f}".lstrip("0"), va="center", fontsize=9.5, color=color)
    axes.set_yticks(range(len(wanted)), reversed(wanted))
    axes.axvline(0.05, color=GREY, lw=1, ls=(0, (3, 3)))
    axes.text(0.06, len(wanted) - 0.72, "chance", fontsize=8.5, color=GREY, va="center")
    axes.set(xlim=(0, 0.75), ylim=(-0.6, len(wanted) - 0.3))
    axes.set_xlabel("HR@1 among 20 candidates, 95% interval", color=GREY, fontsize=9)
    axes.set_facecolor(PAPER)
    axes.tick_params(length=0, colors=INK)
    axes.grid(axis="x", color=RULE, lw=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.text(
        0.02, 0.93, "MovieLens-1M: three seeds of 1,000 users", fontsize=12, weight="bold", va="center"
    )
    return figure


FIGURES = (chain, data_flow, grpo_step, shared_prefix, mesh, mini)


def main(folder: Path = FOLDER, suffix: str = "svg") -> None:
    with plt.rc_context(STYLE):
        for draw in FIGURES:
            figure = draw()
            options = {"metadata": {"Date": None}} if suffix == "svg" else {"dpi": 110}
            figure.savefig(folder / f"{draw.__name__}.{suffix}", **options)
            plt.close(figure)


if __name__ == "__main__":
    main()
