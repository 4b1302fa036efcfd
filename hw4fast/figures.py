"""How every picture of the project looks: one palette that the colour-blind can read, one set of defaults."""

from __future__ import annotations

import textwrap
from typing import Any

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
