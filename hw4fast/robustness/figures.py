"""The study's drawings: one function draws a transform's curve, for the picture file and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hw4fast.figures import MARKERS, NARROWEST, OKABE_ITO, Cell, grid, plain, pyplot, sheet, wrapped
from hw4fast.robustness.across import Across
from hw4fast.robustness.analysis import Breaking, median_rank
from hw4fast.robustness.findings import by_series, labelled_part
from hw4fast.robustness.metrics import Row, breaks, harm
from hw4fast.robustness.scales import share_of
from hw4fast.stats import CalibrationBin, half_up
from hw4fast.transforms.spec import Sweep

ACCURACY, FLIPS = OKABE_ITO[0], OKABE_ITO[1]
PANEL = (3.3, 2.15)  # inches
LINES = 12  # of pictures on a sheet; more are drawn at half the resolution


def draw_panel(axes: Any, clean: Row, rows: Sequence[Row], ink: str = "black") -> None:
    """Accuracy and flip rate in % against severity, clean at the left, 95 % Wilson intervals as bands."""
    points = [clean, *rows]
    place = np.arange(len(points))
    if clean.accuracy is not None:
        axes.axhline(100 * clean.accuracy, color=ink, linewidth=0.8, linestyle=":", marker="")
        _line(axes, place, [(p.accuracy, p.accuracy_interval) for p in points], ACCURACY, MARKERS[0], "-")
    _line(axes, place, [(p.flip_rate, p.flip_interval) for p in points], FLIPS, MARKERS[1], "--")
    axes.set_xticks(place, [p.point.label for p in points])
    axes.set_xlim(-0.3, len(points) - 0.7)
    axes.set_ylim(-3, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_xlabel("severity" if rows[0].point.severity else "", color=ink)
    axes.set_ylabel("% of pictures", color=ink)
    axes.tick_params(colors=ink)
    axes.grid(color=ink, alpha=0.15, linewidth=0.6)
    axes.spines[["left", "bottom"]].set_color(ink)


def _line(axes: Any, x: np.ndarray, values: Sequence[Any], colour: str, marker: str, style: str) -> None:
    middle = [100 * value for value, _ in values]
    low, high = ([100 * interval[end] for _, interval in values] for end in (0, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, middle, color=colour, marker=marker, linestyle=style, linewidth=1.6)


def legend_svg(kind: str) -> str:
    """The line and marker of `accuracy` or `flips` in a panel, as a small `<svg>` for a page's legend."""
    if kind == "accuracy":
        style, mark = "", '<circle cx="20" cy="7" r="4"/>'
    else:
        style, mark = ' stroke-dasharray="6 3"', '<rect x="16.5" y="3.5" width="7" height="7"/>'
    return (
        f'<svg viewBox="0 0 40 14" aria-hidden="true"><g fill="var(--{kind})" stroke="var(--{kind})">'
        f'<path d="M0 7H40" fill="none" stroke-width="2"{style}/>{mark}</g></svg>'
    )


def save_curves(path: Path, clean: Row, groups: Sequence[Sequence[Row]], title: str) -> None:
    """`accuracy`: all panels on one sheet, at most four abreast."""
    plt = pyplot()
    columns = min(3 if len(groups) <= 9 else 4, len(groups))
    lines = -(-len(groups) // columns)
    wide = max(NARROWEST, PANEL[0] * columns) / columns  # inches of a panel, with what is written around it
    box = wide - 0.16 - 0.64 / columns, PANEL[1] - 0.7  # the numbers of an axis stand at the left of a line
    names = [plain(wrapped(rows[0].point.series, box[0], 13)) for rows in groups]
    tall = PANEL[1] + 0.19 * max(name.count("\n") for name in names)
    heading = plain(wrapped(title, wide * columns - 0.2))
    figure, top = sheet(plt, (wide * columns, tall * lines), heading, below=0.6)
    width, height = figure.get_size_inches()
    for number, (rows, name) in enumerate(zip(groups, names, strict=True)):
        line, column = divmod(number, columns)
        left, bottom = 0.56 + column * (box[0] + 0.16), top - (line + 1) * tall + 0.5
        axes = figure.add_axes((left / width, bottom / height, box[0] / width, box[1] / height))
        draw_panel(axes, clean, rows)
        axes.set_title(name, loc="left", fontweight="bold")
        if column:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
    part = labelled_part(clean)
    bands = f"bands: 95 % Wilson intervals{'; accuracy' + part if part else ''}"
    figure.legend(handles=_legend(plt, clean), title=bands, loc="lower center", ncols=3, frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """As .png and as .svg. Laid out once: that takes as long as drawing it twice."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
    figure.savefig(path.with_suffix(".png"))
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    pyplot().close(figure)


def save_heat(path: Path, rows: Sequence[Row], title: str) -> bool:
    """`heat`: accuracy (or the share of changed answers) in % as a number per transform and severity, on a tint that
    deepens with what is lost; a frame where the model breaks. False, and nothing, without severities."""
    clean = rows[0]
    graded = [group for group in by_series(rows) if group[0].point.severity is not None]
    if not graded:
        return False
    plt = pyplot()
    lost = np.array([[max(0.0, harm(row) - harm(clean)) for row in group] for group in graded])
    figure, axes = plt.subplots(figsize=(NARROWEST, 0.235 * len(graded) + 1.3), layout="constrained")
    axes.imshow(lost, cmap=_tints(), vmin=0, vmax=max(1e-9, 1 - harm(clean)), aspect="auto")
    for y, group in enumerate(graded):
        for x, row in enumerate(group):
            value = row.flip_rate if row.accuracy is None else row.accuracy
            axes.text(x, y, half_up(100 * value, 0), ha="center", va="center", fontsize=8)
            if breaks(row, clean):
                axes.add_patch(plt.Rectangle((x - 0.47, y - 0.44), 0.94, 0.88, fill=False, linewidth=0.9))
    axes.set_xticks(range(len(graded[0])), [row.point.label for row in graded[0]])
    axes.set_yticks(range(len(graded)), [plain(group[0].point.series) for group in graded])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    what = "answers that changed" if clean.accuracy is None else f"right (clean: {half_up(100 * clean.accuracy, 0)} %)"
    axes.set_xlabel(f"severity; % of pictures {what}; framed: it breaks")
    figure.suptitle(plain(wrapped(title, NARROWEST - 0.2)), fontsize=10)
    _save(figure, path)
    return True


def _tints() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("harm", ["white", "#f3b98f", OKABE_ITO[1]])


def save_breaking(path: Path, found: Sequence[Breaking], sweeps: Mapping[str, Sweep], title: str) -> bool:
    """`breaking`: along each transform's sweep the middle half of the breaking points, and their median with its 95 %
    interval, which stands at the right in numbers, too. False, and nothing, without any."""
    if not found:
        return False
    plt = pyplot()
    width = NARROWEST + 3
    figure, axes = plt.subplots(figsize=(width, 0.27 * len(found) + 1.4), layout="constrained")
    for y, one in enumerate(found):

        def place(value: float | None, sweep: Sweep = sweeps[one.transform]) -> float:
            return 1.0 if value is None else share_of(sweep, value)  # None: beyond the end

        low, high = map(place, one.quartiles)
        axes.barh(y, high - low, left=low, height=0.55, color=OKABE_ITO[5], edgecolor="black", linewidth=0.5)
        said = "fewer than half"
        if one.median is not None:
            axes.plot([place(one.median)] * 2, [y - 0.38, y + 0.38], color="black", marker="", linewidth=2)
            said = f"{one.parameter} {one.median:.3g}"
            if median_rank(one.n) is not None:
                ends = list(map(place, one.interval))
                axes.plot(ends, [y, y], color="black", marker="|", markersize=6, linewidth=1.1)
                said += f" ({' … '.join('never' if end is None else f'{end:.3g}' for end in one.interval)})"
        axes.text(1.02, y, said, va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [plain(one.transform) for one in found])
    axes.set_xlim(0, 1)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xticks([0, 0.5, 1], ["harmless", "half of its sweep", "the end"])
    interval = "" if median_rank(found[0].n) is None else " with its 95 % interval"
    told = f"where the answer changes; box: middle half, line: median{interval}, the same at the right in numbers"
    axes.set_xlabel(wrapped(told, width - 2.6, 9))
    figure.suptitle(plain(wrapped(title, width - 0.2)), fontsize=10)
    _save(figure, path)
    return True


def save_calibration(path: Path, series: Sequence[tuple[str, Sequence[CalibrationBin]]], title: str) -> bool:
    """`calibration`: accuracy against confidence in %, with the bins' 95 % intervals. series: (its name, bins). False,
    and nothing, without any."""
    if not series:
        return False
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(NARROWEST, NARROWEST), layout="constrained")
    axes.plot([0, 100], [0, 100], color="black", linestyle=":", marker="", linewidth=1, label="as often right as sure")
    for (name, bins), colour, marker, style in zip(series, OKABE_ITO, MARKERS, ("-", "--"), strict=False):
        kept = [(100 * (b.confidence or 0), 100 * (b.accuracy or 0), b) for b in bins if b.n]
        x, y = [one for one, _, _ in kept], [one for _, one, _ in kept]
        ends = [(value, value) if b.interval is None else [100 * end for end in b.interval] for _, value, b in kept]
        errors = [[value - low for value, (low, _) in zip(y, ends, strict=True)]]
        errors.append([high - value for value, (_, high) in zip(y, ends, strict=True)])
        axes.errorbar(x, y, np.maximum(errors, 0), color=colour, marker=marker, linestyle=style, capsize=2, label=name)
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence, %", ylabel="% right", aspect="equal")
    axes.legend(frameon=False, loc="upper left")
    figure.suptitle(plain(wrapped(title, NARROWEST - 0.2)), fontsize=10)
    _save(figure, path)
    return True


def save_models(path: Path, found: Across, title: str) -> bool:
    """`models`: the area under each transform's curve, in %, a mark per model with its 95 % interval. False, and
    nothing, for more models than there are marks."""
    names, lines = found.models, found.lines
    if len(names) > len(MARKERS):
        return False
    plt = pyplot()
    apart = 0.13  # of two models' marks
    line = apart * (len(names) + 1)
    width = NARROWEST + 1.6
    columns = 1 if max(map(len, names)) > 30 else 2
    labels = [plain(wrapped(name, width / columns - 0.9, 9)) for name in names]
    words = sum(label.count("\n") + 1 for label in labels) / columns + 4  # lines of the legend, the title and below
    size = width, 0.11 * (len(names) + 1) * len(lines) + 0.18 * words + 0.6
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for number, (label, colour, marker) in enumerate(zip(labels, OKABE_ITO, MARKERS, strict=False)):
        y = [at * line + apart * (number - (len(names) - 1) / 2) for at in range(len(lines))]
        middle = np.array([100 * one.areas[number] for one in lines])
        low, high = 100 * np.array([one.intervals[number] for one in lines]).T
        errors = np.maximum([middle - low, high - middle], 0)
        mark = {"color": colour, "marker": marker, "linestyle": "", "elinewidth": 1}
        axes.errorbar(middle, y, xerr=errors, label=label, **mark)
    for at in range(1, len(lines)):
        axes.axhline((at - 0.5) * line, color="black", alpha=0.15, linewidth=0.6, marker="")
    axes.set_yticks([at * line for at in range(len(lines))], [plain(one.series) for one in lines])
    axes.set_ylim((len(lines) - 0.5) * line, -0.5 * line)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(-1, 101)
    what = "accuracy" if found.labelled else "answers that stay"
    told = f"{what}, %: mean height of the curve from clean to severity\u00a05; bars: 95\u00a0% intervals"
    axes.set_xlabel(wrapped(told, width - 2, 9))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    some = f" of {found.whole}, labelled for all" if found.n < found.whole else ""
    figure.suptitle(plain(wrapped(f"{title} · n = {found.n} pictures{some}", width - 0.2)), fontsize=10)
    _save(figure, path)
    return True


def _legend(plt: Any, clean: Row) -> list[Any]:
    flips = plt.Line2D([], [], color=FLIPS, marker=MARKERS[1], linestyle="--", label="answers flipped")
    if clean.accuracy is None:
        return [flips]
    right = plt.Line2D([], [], color=ACCURACY, marker=MARKERS[0], label="accuracy")
    dotted = plt.Line2D([], [], color="black", marker="", linestyle=":", linewidth=0.8, label="accuracy when clean")
    return [right, flips, dotted]


def save_grid(path: Path, rows: Sequence[tuple[str, Sequence[Cell]]], title: str) -> None:
    """`transforms.png`: one line of pictures per transform, each with its heading and the answer below it."""
    columns = max(len(cells) for _, cells in rows)
    grid(path, rows, title, max(1.25, (NARROWEST - 0.4) / columns), dpi=130 if len(rows) <= LINES else 65)
