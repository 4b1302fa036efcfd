"""The part `fast`: our shortest time to 99 % on MNIST, beside the well-known PyTorch example's."""

from __future__ import annotations

import csv
import statistics
import sys
from pathlib import Path
from typing import Any

from hw4fast.data import forget
from hw4fast.figures import OKABE_ITO, pyplot
from hw4fast.homework.finished import finished
from hw4fast.homework.parts import Options, Part, aligned, drawing, inked, save, save_csv, save_png
from hw4fast.homework.parts import table as html_table
from hw4fast.page import INK
from hw4fast.training import runs
from hw4fast.training.recipes import RECIPES
from hw4fast.training.settings import Settings

SEEDS, EXAMPLE_EPOCHS, GOAL = 20, 7, 0.99
PUBLISHED = "0.76 s on a laptop GPU (train_mnist_fast, data preparation left out)"
HEAD = ("What", "Seeds", "Test accuracy, mean", "range", "Seconds, median", "range", "Counted")


def run(folder: Path, options: Options) -> dict[str, Any]:
    """Trains the recipe fast with every seed and the PyTorch example on either kernels; writes fast.csv, fast.png and
    results.json. The clock starts before the data is read, which each run does anew."""
    ours = [_one(folder, options, f"fast-{seed}", "fast", seed=seed) for seed in range(options.seeds or SEEDS)]
    epochs = min(EXAMPLE_EPOCHS, options.epochs or EXAMPLE_EPOCHS)
    examples = [
        _one(folder, options, f"example-{kernels}", "pytorch-example", kernels=kernels, epochs=epochs)
        for kernels in ("hw4fast", "torch")
    ]
    results = {"dataset": options.dataset, "fast": ours, "examples": examples, "goal": GOAL}
    save_csv(folder / "fast.csv", [{k: v for k, v in entry.items() if k != "epochs"} for entry in [*ours, *examples]])
    save_png(draw(results, "black"), folder / "fast.png")
    save(folder, results, options)
    return results


def _one(folder: Path, options: Options, name: str, recipe: str, **values: Any) -> dict[str, Any]:
    common = {"dataset": options.dataset, "recipe": recipe, "threads": options.threads}
    if options.progress:
        print(f"hw4fast: {name}", file=sys.stderr)
    forget()  # the data set is read within the run's own time
    path = folder / "runs" / name
    finished(path, Settings(**(common | RECIPES.get(recipe).settings | values)), options.progress)
    entry = runs.load_record(path)
    with (path / runs.METRICS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = [int(row["test_correct"]) / int(row["test_images"]) for row in rows]
    seconds = [float(row["seconds"]) for row in rows]
    before = sum(session.get("wall_seconds", 0.0) for session in entry["sessions"]) - sum(seconds)
    reached = next((n for n, accuracy in enumerate(accuracies, 1) if accuracy >= GOAL), None)
    return {
        "name": name,
        "kernels": entry["settings"]["kernels"],
        "seed": entry["settings"]["seed"],
        "accuracy": accuracies[-1],
        "seconds": before + sum(seconds),
        "epochs_to_goal": reached,
        "seconds_to_goal": None if reached is None else before + sum(seconds[:reached]),
        "sessions": len(entry["sessions"]),  # of an interrupted run's there is no whole time: `before` is wrong then
        "epochs": [{"accuracy": a, "seconds": s} for a, s in zip(accuracies, seconds, strict=True)],
    }


def _of_ours(results: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Accuracies in % and seconds of the seeds; a run that was interrupted has no time of its own."""
    runs_of = results["fast"]
    return [100 * r["accuracy"] for r in runs_of], [r["seconds"] for r in runs_of if r["sessions"] == 1]


def finding(results: dict[str, Any]) -> str:
    accuracies, seconds = _of_ours(results)
    if not seconds:
        return f"{statistics.fmean(accuracies):.2f} % on {results['dataset']}, mean of {len(accuracies)} seeds"
    return (
        f"{statistics.fmean(accuracies):.2f} % on {results['dataset']} (mean of {len(accuracies)} seeds) in"
        f" {statistics.median(seconds):.1f} s (median) from before the data is read"
    )


def to_goal(entry: dict[str, Any]) -> str:
    """When an example first reached the goal; luck of one seed decides between one epoch and the next."""
    if entry["epochs_to_goal"] is None:
        return f"not in {len(entry['epochs'])} epochs"
    epochs = f"{entry['epochs_to_goal']} epochs"
    return f"{entry['seconds_to_goal']:.1f} ({epochs})" if entry["sessions"] == 1 else f"interrupted ({epochs})"


def _rows(results: dict[str, Any]) -> list[list[str]]:
    accuracies, seconds = _of_ours(results)
    spread = f"{min(seconds):.2f} … {max(seconds):.2f}" if seconds else "–"
    rows = [
        [
            "recipe fast, our kernels",
            str(len(accuracies)),
            f"{statistics.fmean(accuracies):.3f} %",
            f"{min(accuracies):.2f} … {max(accuracies):.2f}",
            f"{statistics.median(seconds):.2f}" if seconds else "–",
            spread,
            "reading, one epoch, test",
        ]
    ]
    for entry in results["examples"]:
        whose = "our kernels" if entry["kernels"] == "hw4fast" else "torch"
        rows.append(
            [
                f"PyTorch's example, {whose}",
                "1",
                f"{100 * entry['epochs'][(entry['epochs_to_goal'] or 0) - 1]['accuracy']:.2f} %",
                "–",
                to_goal(entry),
                "–",
                f"until a test of at least {100 * results['goal']:.0f} %, tests after each epoch included;"
                f" {statistics.median(epoch['seconds'] for epoch in entry['epochs']):.0f} s an epoch",
            ]
        )
    return rows


def table(results: dict[str, Any]) -> list[str]:
    lines = aligned(HEAD, _rows(results))
    return [*lines, f"published: {PUBLISHED}"]


def draw(results: dict[str, Any], ink: str) -> Any:
    """Test accuracy against the time since before the data was read, every seed and the example's epochs."""
    figure, axes = pyplot().subplots(figsize=(5.5, 3.2), layout="constrained")
    accuracies, seconds = _of_ours(results)
    if len(seconds) == len(accuracies):
        axes.plot(seconds, accuracies, linestyle="", marker="o", color=OKABE_ITO[0], label="recipe fast, each seed")
    for number, entry in enumerate(results["examples"], 1):
        start = entry["seconds"] - sum(epoch["seconds"] for epoch in entry["epochs"])
        times = [
            start + sum(epoch["seconds"] for epoch in entry["epochs"][: n + 1]) for n in range(len(entry["epochs"]))
        ]
        whose = "our kernels" if entry["kernels"] == "hw4fast" else "torch"
        shares = [100 * epoch["accuracy"] for epoch in entry["epochs"]]
        axes.plot(times, shares, color=OKABE_ITO[number], marker="s^"[number - 1], label=f"PyTorch's example, {whose}")
    axes.axhline(100 * results["goal"], color=ink, linewidth=0.8, linestyle=":", marker="")
    axes.set(xlabel="seconds since before the data was read", ylabel="test accuracy (%)", xscale="log")
    inked(axes, ink)
    axes.legend(frameon=False, labelcolor=ink)
    return figure


def section(results: dict[str, Any], folder: Path) -> str:
    card = drawing(
        draw(results, INK), "fast", "Time to 99 %", "Dotted: 99 %. One dot is one run with a seed of its own."
    )
    n = len(results["fast"])
    return f"""<p class="note">Two 5×5 blocks of 8 and 32 channels and one linear layer, one epoch in batches of 96,
Adam with a rate that rises to 0.01 in the first tenth and falls to 0, labels smoothed by 0.05; {n} runs, each with a
seed of its own. These settings were chosen by the test accuracy of other seeds. The clock starts before the data is
read and ends when the test accuracy is known. Published elsewhere: {PUBLISHED}.</p>
<div class="grid strips">{card}</div>
{html_table(HEAD, _rows(results), label="Times")}"""


PART = Part("fast", "MNIST in seconds", run, section, finding, table)
