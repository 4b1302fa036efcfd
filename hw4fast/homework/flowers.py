"""The part `flowers`: problem 5, a pretrained net on Oxford 102 Flowers, frozen, unfrozen, and one after the other."""

from __future__ import annotations

import math
import statistics
import sys
from html import escape
from pathlib import Path
from typing import Any

from hw4fast.figures import OKABE_ITO, pyplot
from hw4fast.homework.finished import finished
from hw4fast.homework.parts import Options, Part, aligned, drawing, inked, photograph, save, save_csv, save_png
from hw4fast.homework.parts import table as html_table
from hw4fast.page import INK
from hw4fast.stats import wilson
from hw4fast.training import runs
from hw4fast.training.recipes import RECIPES
from hw4fast.training.runs import Epoch
from hw4fast.training.settings import Settings

BACKBONE = "shufflenet_v2_x1_0"
POINTS = 400
LINES = (("-", 6.0), ("-", 3.5), ("-", 1.6), ("-", 1.2), ("--", 1.6))  # style and width: the frozen ones coincide
# name → what it sets beside the recipe finetune
RUNS: dict[str, dict[str, Any]] = {
    "frozen, patience 10": {"tune": "head", "patience": 10},
    "frozen, patience 15": {"tune": "head", "patience": 15},
    "unfrozen, patience 10": {"tune": "all", "patience": 10},
    "frozen, then unfrozen": {"tune": "head-then-all", "patience": 10},
    "unfrozen, plain resize": {"tune": "all", "patience": 10, "preprocess": "stretch"},
}
PICTURES = {"curves.png": "curves", "mistakes.png": "worst mistakes", "confusion.png": "confusion"}
FOLDED = (
    " These weights came with their batch normalisation folded into the convolutions (all means 0, all variances 1), as"
    " a net that went through ONNX has it: its statistics were taken anew from the training pictures before all layers"
    " were trained, which changes no answer. Without that, training mode is another net."
)
HEAD = (
    "Run",
    "Test accuracy",
    "95 % interval",
    "Validation accuracy",
    "Epochs",
    "Best epoch",
    "Seconds per epoch",
    "Stopped",
)


def run(folder: Path, options: Options) -> dict[str, Any]:
    """Trains what is not trained yet; writes flowers.csv, flowers.png and results.json."""
    pictures = options.pictures if options.pictures == "flowers" else str(Path(options.pictures).resolve())
    usual = {"dataset": pictures, "model": BACKBONE, "recipe": "finetune", "threads": options.threads}
    found = []
    for name, own in RUNS.items():
        values = RECIPES.get("finetune").settings | own
        values["epochs"] = min(options.epochs or values["epochs"], values["epochs"])
        if options.progress:
            print(f"hw4fast: flowers, {name}", file=sys.stderr)
        settings = Settings(**(usual | values))
        path = folder / "runs" / name.replace(", ", "-").replace(" ", "-")
        finished(path, settings, options.progress)
        found.append({"name": name, "folder": path.name} | _outcome(path))
    results = {"backbone": BACKBONE, "dataset": found[0]["dataset"], "runs": found}
    save_csv(folder / "flowers.csv", [{k: v for k, v in entry.items() if k != "curve"} for entry in found])
    save_png(draw(results, "black"), folder / "flowers.png")
    save(folder, results, options)
    return results


def _outcome(path: Path) -> dict[str, Any]:
    entry, state = runs.load_record(path), runs.load_state(path)
    assert state is not None
    data = runs.load_data(entry)
    settings, result = Settings.from_json(entry["settings"]), entry["result"]
    stages = list(dict.fromkeys(row.stage for row in state.history))
    last = [row for row in state.history if row.stage == stages[-1]]
    return {
        "dataset": entry["data"]["name"],
        "left_out": len(data.left_out),
        "train_images": len(data.train),
        "classes": len(data.class_names),
        "batch_norm_unfolded": entry.get("batch_norm_unfolded", False),
        "test_correct": result["test_correct"],
        "test_images": result["test_images"],
        "val_correct": result["val_correct"],
        "val_images": result["val_images"],
        "best_epoch": f"{result['best_epoch']['stage']} {result['best_epoch']['epoch']}",
        "epochs": len(state.history),
        "head_epochs": sum(row.stage == "head" for row in state.history),
        "seconds": {stage: _per_epoch(state.history, stage) for stage in stages},
        "stopped_early": len(last) < settings.epochs,
        "curve": _curve(state.history),
    }


def _curve(history: list[Epoch]) -> list[dict[str, float]]:
    """What the validation split said after so many seconds of epochs: of thousands of epochs of a stage some hundreds,
    denser at its start, as an axis of logarithms shows them; its last one and its best one are among them."""
    stages = [row.stage for row in history]
    wanted, begin = set(), 0
    for stage in dict.fromkeys(stages):
        n = stages.count(stage)
        wanted |= {begin + round(n ** (i / POINTS)) for i in range(POINTS + 1)}
        best = min(range(begin, begin + n), key=lambda at: history[at].held_out[1])
        wanted |= {best + 1}
        begin += n
    points, seconds = [], 0.0
    for number, row in enumerate(history, 1):
        seconds += row.seconds
        _, cost, correct, images = row.held_out
        if number in wanted:
            points.append({"seconds": seconds, "cost": cost, "accuracy": correct / images})
    return points


def _per_epoch(history: list[Epoch], stage: str) -> float:
    return statistics.median(row.seconds for row in history if row.stage == stage)


def _accuracy(entry: dict[str, Any]) -> float:
    return 100 * entry["test_correct"] / entry["test_images"]


def _pair(results: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The runs that are compared: the same but for what is frozen."""
    return _named(results, "frozen, patience 10"), _named(results, "unfrozen, patience 10")


def _named(results: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in results["runs"] if entry["name"] == name)


def _lead(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """By how many points `other` is ahead, and 1.96 standard deviations of that difference."""
    shares = [(_accuracy(entry) / 100, entry["test_images"]) for entry in (one, other)]
    return _accuracy(other) - _accuracy(one), 196 * math.sqrt(sum(p * (1 - p) / n for p, n in shares))


def _points(lead: float) -> str:
    return f"{abs(lead):.1f} points {'behind' if lead < 0 else 'ahead'}"


def finding(results: dict[str, Any]) -> str:
    frozen, whole = _pair(results)
    lead, margin = _lead(frozen, whole)
    better = "better than" if lead > margin else "worse than" if lead < -margin else "no different from"
    return (
        f"{results['backbone']} reaches {_accuracy(whole):.1f} % on {results['dataset']} with all layers trained,"
        f" {better} the {_accuracy(frozen):.1f} % of the last layer alone"
    )


def reason(results: dict[str, Any]) -> str:
    """What frozen and unfrozen cost and bring."""
    frozen, whole = _pair(results)
    cheap, dear = frozen["seconds"]["head"], whole["seconds"]["all"]
    lead, margin = _lead(frozen, whole)
    text = (
        f"A frozen epoch takes {cheap:.3f} s, {dear / cheap:.0f} times less than one of all layers ({dear:.1f} s); not"
        " counted are the one pass that finds the features or the statistics, and the checkpoints."
        f" Unfrozen is {_points(lead)}"
    )
    if abs(lead) <= margin:
        text += f", which is less than the ±{margin:.1f} that {frozen['test_images']} test pictures leave to chance"
    if lead <= margin:
        text += (
            f": with {frozen['train_images'] / frozen['classes']:.0f} pictures of each class to train on and"
            f" {frozen['val_images'] / frozen['classes']:.0f} to stop by, all layers can learn the training pictures by"
            " heart, and more freedom is not more accuracy"
        )
    both = _named(results, "frozen, then unfrozen")
    lead, margin = _lead(frozen, both)
    more = both["epochs"] - both["head_epochs"]
    return (
        f"{text}. One after the other, all layers starting from the best frozen ones, is {_points(lead)} of frozen"
        f" alone (±{margin:.1f} are chance) after {more} epoch{'s' * (more > 1)} of all layers."
    )


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The table's cells under HEAD, a row per run."""
    lines = []
    for entry in results["runs"]:
        low, high = wilson(entry["test_correct"], entry["test_images"])
        lines.append(
            [
                entry["name"],
                f"{_accuracy(entry):.2f} % ({entry['test_correct']} of {entry['test_images']})",
                f"{100 * low:.1f} … {100 * high:.1f}",
                f"{100 * entry['val_correct'] / entry['val_images']:.2f} %",
                str(entry["epochs"]),
                entry["best_epoch"],
                ", ".join(f"{stage} {seconds:.3g}" for stage, seconds in entry["seconds"].items()),
                "early" if entry["stopped_early"] else "at the last epoch",
            ]
        )
    return lines


def table(results: dict[str, Any]) -> list[str]:
    lines = aligned(HEAD, rows(results))
    return [*lines, reason(results)]


def draw(results: dict[str, Any], ink: str) -> Any:
    """Validation cost and accuracy of every run against the seconds that it took; a ring where its cost is lowest."""
    from matplotlib.ticker import FormatStrFormatter, NullFormatter

    figure, grid = pyplot().subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    for number, entry in enumerate(results["runs"]):
        times = [point["seconds"] for point in entry["curve"]]
        best = min(range(len(times)), key=lambda at: entry["curve"][at]["cost"])
        colour, (line, width) = OKABE_ITO[number], LINES[number]
        for axes, key, scale in zip(grid, ("cost", "accuracy"), (1, 100), strict=True):
            values = [scale * point[key] for point in entry["curve"]]
            axes.plot(times, values, line, color=colour, linewidth=width, marker="", label=entry["name"])
            axes.plot(times[best], values[best], "o", color=colour, markerfacecolor="none", markersize=9)
    for axes, label in zip(grid, ("validation cost (nats)", "validation accuracy (%)"), strict=True):
        axes.set(xlabel="seconds of training", ylabel=label, xscale="log")
        inked(axes, ink)
    grid[0].set(yscale="log")
    grid[0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
    grid[0].yaxis.set_minor_formatter(NullFormatter())
    lowest, highest = grid[0].get_ylim()
    grid[0].set_yticks([tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10) if lowest <= tick <= highest])
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False, labelcolor=ink)
    return figure


def section(results: dict[str, Any], folder: Path) -> str:
    card = drawing(
        draw(results, INK),
        "flowers",
        "Validation against time",
        "A ring marks the lowest cost, whose weights are kept; a run ends where patience did.",
    )
    pictures = []
    for entry in results["runs"]:
        for name, words in PICTURES.items():
            path = folder / "runs" / entry["folder"] / name
            wanted = name == "curves.png" or entry["name"].startswith("unfrozen, patience")
            if wanted and path.is_file():
                title = f"{entry['name']}: {words}"
                pictures.append(photograph(path, title, title))
    whole = [entry for entry in results["runs"] if entry["epochs"] > entry["head_epochs"]]
    folded = FOLDED if all(entry["batch_norm_unfolded"] for entry in whole) else ""
    missing = results["runs"][0]["left_out"]
    left_out = f" {missing} pictures could not be read and were left out." if missing else ""
    what = escape(f"{results['backbone']} pretrained on ImageNet, {results['dataset']}")
    return f"""<p class="note">{what}, Adam at 0.0001 in batches of 32, cross-entropy; a run stops when the validation
cost has not fallen for ten (or fifteen) epochs, and keeps the weights of its lowest. Frozen: all but the last layer,
batch normalisation’s statistics included; its features are computed once. Full ImageNet preprocessing, but for “plain
resize”, which stretches to 224×224.</p>
<p>{escape(reason(results))}{escape(folded)}{escape(left_out)}</p>
<div class="grid wide">{card}</div>
{html_table(HEAD, rows(results), label="Runs")}
<div class="grid">{"".join(pictures)}</div>"""


PART = Part("flowers", "Flowers (problem 5)", run, section, finding, table)
