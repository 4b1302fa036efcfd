"""How the part `mnist` is shown: table, reasons, curves, sweeps."""

from __future__ import annotations

import statistics
from html import escape
from pathlib import Path
from typing import Any

from hw4fast.figures import MARKERS, OKABE_ITO, pyplot
from hw4fast.homework.mnist_why import RIGHT, SEED, Conclusion, conclusions, mechanism, reason
from hw4fast.homework.parts import aligned, drawing, inked, save_png
from hw4fast.homework.parts import table as html_table
from hw4fast.page import INK
from hw4fast.stats import wilson

OPTIMISERS = ("sgd", "momentum", "adagrad", "adam", "sgd-bn", "adam-bn")
AXES = {"lr": "learning rate", "l2": "λ of L2", "l1": "λ of L1", "momentum": "momentum μ"}
HEAD = (
    "Recipe",
    "Homework (last batch)",
    "−p_y, last batch",
    "−p_y, whole test set",
    "cross-entropy, last batch",
    "cross-entropy, whole test set",
)

SURVIVAL = (
    "The homework’s conclusion",
    "With the right loss",
    "its points",
    "points under −p_y",
    "under cross-entropy",
)


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table as lines of a CSV."""
    lines = []
    for row in rows:
        line = {"recipe": row["recipe"], "homework": row["homework"]}
        for loss in (SEED, RIGHT):
            found = row[loss]
            low, high = _interval(found)
            names = ("last", "whole", "least", "most", "cost", "diverged")
            line |= {f"{loss} {name}": found[name] for name in names}
            line[f"{loss} seconds"] = statistics.median(found["seconds"])
            line |= {f"{loss} low": low, f"{loss} high": high}
        lines.append(line)
    return lines


def _interval(found: dict[str, Any]) -> tuple[float | None, float | None]:
    """From the lowest to the highest bound of the seeds' 95 % Wilson intervals, in %."""
    n = found["test_images"]
    bounds = [100 * bound for value in found["wholes"] for bound in wilson(round(value / 100 * n), n)]
    return min(bounds, default=None), max(bounds, default=None)


def _whole(found: dict[str, Any], digits: int = 2) -> str:
    if found["whole"] is None:
        return "diverged"
    low, high = _interval(found)
    text = f"{found['whole']:.{digits}f} % ({low:.{digits}f} … {high:.{digits}f})"
    return text + (f", {found['diverged']} diverged" if found["diverged"] else "")


def _last(found: dict[str, Any]) -> str:
    return "diverged" if found["last"] is None else f"{found['last']:.1f} %"


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table as text, under HEAD."""
    seed, right = row[SEED], row[RIGHT]
    return [row["recipe"], f"{row['homework']:g} %", _last(seed), _whole(seed), _last(right), _whole(right)]


def line(conclusion: Conclusion) -> list[str]:
    """A conclusion as text, under SURVIVAL."""
    found = [
        " … ".join(dict.fromkeys(f"{value:+.{digits}f}" for value in (min(points), max(points)))).replace("-", "−")
        if points
        else "diverged"
        for points, digits in ((conclusion.seed, 1), (conclusion.right, 2))
    ]
    return [conclusion.statement, conclusion.verdict, f"{conclusion.homework:+g}", *found]


def finding(results: dict[str, Any]) -> str:
    rows = [row for row in results["rows"] if row[RIGHT]["whole"] is not None]
    reached = [row for row in rows if row[RIGHT]["whole"] >= row["homework"]]
    left = conclusions(results["rows"])
    survive = sum(conclusion.verdict == "survives" for conclusion in left)
    return (
        f"With the right loss {len(reached)} of {len(results['rows'])} recipes reach the homework’s number on the whole"
        f" test set, and {survive} of {len(left)} of its comparisons survive"
    )


def table(results: dict[str, Any]) -> list[str]:
    lines = aligned(HEAD, [cells(row) for row in results["rows"]])
    if general := mechanism(results["rows"]):
        lines.append(general)
    lines += [f"{row['recipe']}: {reason(row)}" for row in results["rows"]]
    lines += aligned(SURVIVAL, [line(conclusion) for conclusion in conclusions(results["rows"])])
    seconds = results["table_seconds"]
    time = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
    took = f"one seed takes {time} on {results['kernels']}’s kernels, {at_a_time(results)}"
    return [*lines, f"{_how_many(results)}; {took} (medians of the seeds)"]


def at_a_time(results: dict[str, Any]) -> str:
    jobs = results.get("jobs", 1)  # not in the results of older versions
    return f"{jobs} runs at a time" if jobs > 1 else "one run after the other"


def _how_many(results: dict[str, Any]) -> str:
    epochs, seeds = (f"{results[what]} {what[:-1]}{'s' * (results[what] > 1)}" for what in ("epochs", "seeds"))
    return f"{2 * len(results['rows']) * results['seeds']} runs of {epochs} ({seeds})"


# -- drawings ----------------------------------------------------------------------------------------------------


def _panel(axes: Any, ink: str, xlabel: str, ylabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    inked(axes, ink)


def _mean(histories: list[dict[str, list[float]]], name: str) -> list[float]:
    """Mean over the seeds, epoch by epoch, as far as all of them got."""
    return [statistics.fmean(values) for values in zip(*(history[name] for history in histories), strict=False)]


def draw_recipe(row: dict[str, Any], ink: str) -> Any:
    """Cost of train and test under each loss, and the accuracies of both, against the epoch; means over the seeds."""
    figure, grid = pyplot().subplots(1, 3, figsize=(10, 2.8), layout="constrained")
    for axes, loss, unit in zip(grid, (RIGHT, SEED), ("nats", "−p_y"), strict=False):
        for name, style in (("train", "-"), ("test", "--")):
            values = _mean(row[loss]["histories"], f"{name}_cost")
            axes.plot(range(1, len(values) + 1), values, linestyle=style, label=name)
        _panel(axes, ink, "epoch", f"{loss} ({unit})")
        axes.legend(frameon=False, labelcolor=ink)
    number = 0
    for loss in (RIGHT, SEED):
        for name, style in (("train", "-"), ("test", "--")):
            values = [100 * value for value in _mean(row[loss]["histories"], f"{name}_accuracy")]
            colour, marker = OKABE_ITO[number], MARKERS[number]
            label = f"{name}, {loss}"
            grid[2].plot(range(1, len(values) + 1), values, linestyle=style, color=colour, marker=marker, label=label)
            number += 1
    _panel(grid[2], ink, "epoch", "accuracy (%)")
    grid[2].legend(frameon=False, labelcolor=ink, fontsize=7)
    return figure


def draw_optimisers(results: dict[str, Any], ink: str) -> Any:
    """Test error of the optimisers against the epoch, with cross-entropy."""
    figure, axes = pyplot().subplots(figsize=(5.5, 3.4), layout="constrained")
    for row in results["rows"]:
        if row["recipe"] in OPTIMISERS:
            values = [100 * (1 - value) for value in _mean(row[RIGHT]["histories"], "test_accuracy")]
            axes.plot(range(1, len(values) + 1), values, label=row["recipe"])
    axes.set_yscale("log")
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format("{x:g}")
    _panel(axes, ink, "epoch", "test error (%)")
    axes.legend(frameon=False, labelcolor=ink, ncols=2)
    return figure


def draw_sweeps(results: dict[str, Any], ink: str) -> Any:
    """Test accuracy against each swept setting; a cross at the bottom is a run whose loss stopped being finite."""
    figure, grid = pyplot().subplots(1, len(AXES), figsize=(11, 2.8), layout="constrained", sharey=True)
    for axes, (setting, words) in zip(grid, AXES.items(), strict=True):
        own = [outcome for outcome in results["sweeps"] if outcome["setting"] == setting]
        done = [
            (o["value"], 100 * o["result"]["test_correct"] / o["result"]["test_images"]) for o in own if o["result"]
        ]
        lost = [o["value"] for o in own if not o["result"]]
        axes.plot(*zip(*done, strict=True), label="finished")
        if lost:
            axes.plot(lost, [0] * len(lost), linestyle="", marker="X", markersize=8, label="diverged")
        if setting == "lr":
            axes.set_xscale("log")
        elif setting != "momentum":
            axes.set_xscale("symlog", linthresh=min(value for value, _ in done if value > 0))
        axes.set_ylim(-5, 103)
        _panel(axes, ink, words, "test accuracy (%)" if axes is grid[0] else "")
    grid[0].legend(frameon=False, labelcolor=ink)
    return figure


def save_drawings(results: dict[str, Any], folder: Path) -> None:
    """One PNG per recipe, one of the optimisers, one of the sweeps."""
    for row in results["rows"]:
        save_png(draw_recipe(row, "black"), folder / f"{row['recipe']}.png")
    save_png(draw_optimisers(results, "black"), folder / "optimisers.png")
    save_png(draw_sweeps(results, "black"), folder / "sweeps.png")


# -- the page ----------------------------------------------------------------------------------------------------


def section(results: dict[str, Any], folder: Path) -> str:
    rows = results["rows"]
    lasts = rows[0][RIGHT]["last_images"]
    means = "mean of the seeds; " if results["seeds"] > 1 else ""
    of_seeds = " of one seed"
    if results["seeds"] > 1:
        of_seeds = "; the mean of the seeds, and from the lowest to the highest bound of their intervals"
    why = "".join(f"<li><b>{escape(row['recipe'])}</b>: {escape(reason(row))}.</li>" for row in rows)
    general = f"<p>{escape(mechanism(rows))}.</p>" if mechanism(rows) else ""
    optimisers = drawing(
        draw_optimisers(results, INK),
        "optimisers",
        "The optimisers compared",
        f"Cross-entropy; {means}n = {rows[0][RIGHT]['test_images']} test images.",
    )
    sweeps = drawing(
        draw_sweeps(results, INK),
        "sweeps",
        "What λ, the learning rate and momentum do",
        f"SGD at 0.1 but for the setting that is swept, {results['sweep_epochs']} epochs, cross-entropy, one seed."
        " A cross: the loss stopped being finite and the run ended with a message.",
    )
    curves = "".join(
        drawing(
            draw_recipe(row, INK),
            f"recipe-{row['recipe']}",
            row["recipe"],
            f"{means}costs as each loss counts them, train as it ran (with dropout).",
        )
        for row in rows
    )
    return f"""<p class="note">{escape(_how_many(results))}, batch 100, dropout 0.4, {escape(results["dataset"])}. The
homework gave softmax’s outputs to a loss that expects log-probabilities, so it minimised −p_y and its losses are
negative; its accuracies are those of the last batch. Both are shown beside cross-entropy and the whole test set (95 %
Wilson interval{of_seeds}). A last batch has {lasts} images. Each is an ordinary run, such as <code>hw4fast train
{escape(results["dataset"])} --recipe sgd --loss seed --seed 1</code>.</p>
{html_table(HEAD, [cells(row) for row in rows], label="Recipes")}
<h3>Why they differ</h3>{general}<ul class="why">{why}</ul>
<h3>What survives</h3>
<p class="note">Of what the homework’s table says: how many points the better one is ahead, there and here, from the
lowest to the highest of the seeds. It survives if with each seed the lead is larger than two such test sets leave to
chance.</p>
{html_table(SURVIVAL, [line(conclusion) for conclusion in conclusions(rows)], left=2, label="Conclusions")}
<div class="grid strips">{optimisers}</div>
<div class="grid wide">{sweeps}{curves}</div>"""
