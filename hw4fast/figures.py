"""How every picture of the project looks: one palette that the colour-blind can read, one set of defaults."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.files import writing
from hw4fast.paths import printable

NARROWEST = 4.8  # inches of a sheet, which its title and legend need
Cell = tuple[str, np.ndarray, str]  # a picture, uint8 [h, w, 1 or 3], with what stands above it and below

# Okabe & Ito, "Color Universal Design" (2008), in the order in which series take them.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # series stay apart in black and white, too


def wrapped(text: str, inches: float, points: float = 10) -> str:
    """`text` on as many lines as it takes to stand within `inches` at a font size of `points`, letters of 0.56 em."""
    return textwrap.fill(text, max(8, int(72 * inches / (0.56 * points))))


def pyplot() -> Any:
    """matplotlib.pyplot on the Agg backend with the project's defaults; imported on first use (0.4 s)."""
    import matplotlib
    from cycler import cycler

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=OKABE_ITO, marker=MARKERS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "lines.markersize": 4,
            "font.size": 9,
            "figure.dpi": 130,
            "svg.fonttype": "none",
            "svg.hashsalt": "hw4fast",  # the same data gives the same bytes
        }
    )
    return plt


def plain(text: str) -> str:
    """As matplotlib draws it letter by letter: a name with dollar signs is no formula, and no sign is in it that
    matplotlib would warn of on stderr as it stands."""
    return "\n".join(map(printable, text.split("\n"))).replace("$", r"\$")


def sheet(plt: Any, inside: tuple[float, float], title: str, below: float = 0.0) -> tuple[Any, float]:
    """A figure for as many inches, its title above and so many below; and where they begin, above its lower end.

    What is many pictures or panels is placed by hand: matplotlib takes longer to lay out a sheet than to draw it.
    """
    above = 0.17 * (title.count("\n") + 1) + 0.13
    figure = plt.figure(figsize=(inside[0], inside[1] + above + below))
    figure.suptitle(title, fontsize=10, y=1 - 0.07 / (inside[1] + above + below), va="top")
    return figure, inside[1] + below


def grid(path: Path, rows: Sequence[tuple[str, Sequence[Cell]]], title: str, cell: float, dpi: int = 130) -> None:
    """Lines of pictures, each `cell` inches wide with what is around it, as a PNG file; a line's name at its left.

    All is drawn into one set of axes: one for each picture takes matplotlib many times as long. Without lines there is
    the title alone.
    """
    plt = pyplot()
    names = [plain(wrapped(name, 1.2, 11)) for name, _ in rows]
    lines = max((name.count("\n") + 1 for name in names if name), default=0)
    left = 0.1 + 0.15 * lines + 0.1 * bool(lines)  # inches, as all that follows
    side = cell - 0.15
    words = [[(plain(wrapped(c[0], cell, 7)), plain(wrapped(c[2], cell, 8))) for c in cells] for _, cells in rows]
    above = [0.11 * max(heading.count("\n") + 1 for heading, _ in line) + 0.05 for line in words]
    tall = [side * max(picture.shape[0] / picture.shape[1] for _, picture, _ in cells) for _, cells in rows]
    below = [0.14 + max((0.13 * (answer.count("\n") + 1) for _, answer in line if answer), default=0) for line in words]
    below = [max(low, 1.3 - high) if name else low for low, high, name in zip(below, tall, names, strict=True)]
    width = max(NARROWEST, left + cell * max((len(cells) for _, cells in rows), default=0))
    height = max(0.1, sum(above + tall + below))
    figure, top = sheet(plt, (width, height), plain(wrapped(title, width - 0.2)))
    axes = figure.add_axes((0, 0, 1, top / figure.get_figheight()))
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.axis("off")
    y = 0.0
    for number, (_, cells) in enumerate(rows):
        middle = y + (above[number] + tall[number] + below[number]) / 2
        axes.text(left / 2, middle, names[number], rotation=90, ha="center", va="center", weight="bold")
        y += above[number]
        for column, ((_, picture, _), (heading, answer)) in enumerate(zip(cells, words[number], strict=True)):
            x = left + column * cell
            place, grey = (x, x + side, y + tall[number], y), {"cmap": "gray", "vmin": 0, "vmax": 255}
            seen = picture[..., 0] if picture.shape[2] == 1 else picture
            axes.imshow(seen, extent=place, aspect="auto", interpolation="nearest", **grey)
            axes.text(x + side / 2, y - 0.04, heading, fontsize=7, ha="center", va="bottom")
            axes.text(x + side / 2, y + tall[number] + 0.05, answer, fontsize=8, ha="center", va="top")
        y += tall[number] + below[number]
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    plt.close(figure)
