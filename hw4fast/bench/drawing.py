"""The picture of a bench: images per second against the batch size, a line per engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hw4fast.figures import MARKERS, OKABE_ITO, pyplot, wrapped
from hw4fast.files import writing

if TYPE_CHECKING:
    from hw4fast.bench import Timing

COLOURS = {  # the same engine looks the same in every picture
    "torch eager": 0,
    "torch channels-last": 5,
    "torch.compile": 4,
    "onnxruntime cpu": 1,
    "onnxruntime cpu fused": 2,
    "onnxruntime cpu float16": 6,
    "onnxruntime cpu int8": 3,
    "onnxruntime cuda": 7,
    "onnxruntime cuda float16": 7,
    "onnxruntime tensorrt": 7,
}
LINES = {"onnxruntime cuda float16": "--", "onnxruntime tensorrt": ":"}  # where a colour stands for several


def draw(timings: Sequence[Timing], caption: str, path: Path) -> None:
    """Writes a PNG. Points are medians, bars reach from the 10 % of slowest calls to the 10 % of fastest."""
    plt = pyplot()
    from matplotlib.ticker import LogLocator

    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    batches = sorted({timing.batch for timing in timings})
    for engine in dict.fromkeys(timing.engine for timing in timings):
        rows = sorted((timing for timing in timings if timing.engine == engine), key=lambda timing: timing.batch)
        rates = [1e3 * row.batch / row.p50_ms for row in rows]
        low = [rate - 1e3 * row.batch / row.p90_ms for rate, row in zip(rates, rows, strict=True)]
        high = [1e3 * row.batch / row.p10_ms - rate for rate, row in zip(rates, rows, strict=True)]
        place = COLOURS.get(engine, 7)
        look = {"color": OKABE_ITO[place], "marker": MARKERS[place], "capsize": 2}
        look["linestyle"] = LINES.get(engine, "-")
        axes.errorbar([row.batch for row in rows], rates, (low, high), label=engine, **look)
    axes.set(xscale="log", yscale="log", xlabel="images in a batch", ylabel="images per second")
    axes.set_xticks(batches, map(str, batches))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    axes.legend(fontsize=8)
    figure.supxlabel(wrapped(caption, 7, 8), fontsize=8)
    with writing(path) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)
