"""Pictures of a run: its curves, and what its data look like."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from hw4fast.data import Split
from hw4fast.figures import OKABE_ITO, grid, pyplot, wrapped
from hw4fast.files import writing
from hw4fast.stats import wilson
from hw4fast.training.runs import Epoch

DPI = 150


def curves(history: list[Epoch], path: Path, title: str, dropout: bool = False) -> None:
    """Cost and accuracy of the training images and of those held out against the epoch; the band, or after a single
    epoch the bar, is the latter accuracy's 95 % Wilson interval. A dotted line begins another stage.

    title: what was trained on what. dropout: whether some outputs were dropped in training, and none in the tests.
    """
    plt = pyplot()
    epochs = list(range(1, len(history) + 1))
    every = {"markevery": max(1, len(history) // 25)}
    split, _, correct, n = history[-1].held_out
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    train = "train (as it ran, with dropout)" if dropout else "train (as it ran)"
    left.plot(epochs, [row.train_cost for row in history], label=train, **every)
    left.plot(epochs, [row.held_out[1] for row in history], label=split, **every)
    costs = [cost for row in history for cost in (row.train_cost, row.held_out[1])]
    log = min(costs) > 0 and max(costs) >= 3 * min(costs)  # of a narrower range matplotlib writes 1.385 × 10⁰
    left.set(xlabel="epoch", ylabel="cost", yscale="log" if log else "linear")
    left.legend(frameon=False)
    intervals = [wilson(right_ones, images) for _, _, right_ones, images in (row.held_out for row in history)]
    right.plot(epochs, [100 * row.train_accuracy for row in history], label=train, **every)
    right.plot(epochs, [100 * row.held_out[2] / row.held_out[3] for row in history], label=split, **every)
    low, high = ([100 * bound[side] for bound in intervals] for side in (0, 1))
    if len(epochs) == 1:
        right.vlines(epochs, low, high, color=OKABE_ITO[1], zorder=1)
    else:
        right.fill_between(epochs, low, high, color=OKABE_ITO[1], alpha=0.2, linewidth=0)
    right.set(xlabel="epoch", ylabel="accuracy (%)")
    begins = [place for place in range(1, len(history)) if history[place].stage != history[place - 1].stage]
    best = min(range(len(history)), key=lambda place: history[place].held_out[1])
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        for place in begins:
            axes.axvline(place + 0.5, color="black", linestyle=":", linewidth=1, marker="")
        if split == "val":
            axes.axvline(best + 1, color=OKABE_ITO[2], linestyle="--", linewidth=1, marker="")
    after = f"after {len(history)} epoch{'s' * (len(history) > 1)}"
    share = f"{100 * correct / n:.2f} % of {n} {split} pictures right"
    figure.suptitle(wrapped(f"{share} {after} ({title})", 8.6), fontsize=10)
    mark = "bar" if len(epochs) == 1 else "band"
    notes = [f"{mark}: 95 % Wilson interval of the {split} accuracy, n = {n}"]
    notes += ["dashed: the lowest validation cost, whose weights were kept"] * (split == "val")
    notes += ["dotted: from here all layers were trained"] * bool(begins)
    figure.supxlabel("; ".join(notes), fontsize=7)
    _save(figure, path)


def contact_sheet(split: Split, names: tuple[str, ...], path: Path) -> None:
    """The first ten images of a test split with the names of their classes."""
    shown = [(names[label], image, "") for image, label in zip(split.images[:10], split.labels, strict=False)]
    rows = [("", shown[at : at + 5]) for at in range(0, len(shown), 5)]
    grid(path, rows, f"The first {len(shown)} test pictures, with their labels", 1.2, DPI)


def class_sheet(split: Split, names: tuple[str, ...], path: Path) -> None:
    """Of each of the first ten classes five pictures, with the classes' names."""
    rows = []
    for label, name in enumerate(names[:10]):
        numbers = np.flatnonzero(split.labels == label)[:5]
        rows.append((name, [("", split.images[number], "") for number in numbers]))
    rows = [(name, cells) for name, cells in rows if cells]
    grid(path, rows, f"Training pictures of the first {len(rows)} classes", 1.5, DPI)


def confusion(labels: np.ndarray, answers: np.ndarray, names: tuple[str, ...], path: Path, title: str) -> None:
    """How often each class was taken for which; answers: probabilities [n, classes]."""
    plt = pyplot()
    k, given = len(names), answers.argmax(1)
    counts = np.zeros((k, k), int)
    np.add.at(counts, (labels, given), 1)
    side = min(9.0, max(4.0, 0.28 * k + 2))
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of the class's pictures")
    axes.grid(visible=False)
    axes.set(xlabel="answer", ylabel="class")
    if k <= 25:
        axes.set_xticks(range(k), names, rotation=90, fontsize=7)
        axes.set_yticks(range(k), names, fontsize=7)
    right = int((labels == given).sum())
    worst = counts * (1 - np.eye(k, dtype=int))
    one, other = np.unravel_index(worst.argmax(), worst.shape)
    most = f"; most often: {names[one]} taken for {names[other]} ({worst.max()}×)" if worst.max() else ""
    text = f"{right} of {len(labels)} test pictures right ({title}){most}"
    figure.suptitle(wrapped(text, side - 0.4, 9), fontsize=9)
    _save(figure, path)


def mistakes(split: Split, answers: np.ndarray, names: tuple[str, ...], path: Path, title: str) -> None:
    """The worst mistakes: the wrong answers that the net was surest of; answers: probabilities [n, classes]."""
    given = answers.argmax(1)
    wrong = np.flatnonzero(given != split.labels)
    worst = wrong[np.argsort(-answers[wrong, given[wrong]], kind="stable")][:20]
    cells = [
        (f"{names[given[n]]} {100 * answers[n, given[n]]:.0f} %", split.images[n], f"is {names[split.labels[n]]}")
        for n in worst
    ]
    found = f"The {len(worst)} wrong answers it was surest of" if len(worst) else "No wrong answer"
    rows = [("", cells[at : at + 5]) for at in range(0, len(cells), 5)]
    grid(path, rows, f"{found}, of {len(wrong)} among {len(split)} test pictures ({title})", 1.9, DPI)


def samples(split: Split, names: tuple[str, ...], folder: Path) -> None:
    """The first ten images as PNG files of their own, `00-CLASS.png` …: something to classify."""
    for number, (image, label) in enumerate(zip(split.images[:10], split.labels, strict=False)):
        name = re.sub(r"[^\w-]", "_", names[label])
        with writing(folder / f"{number:02}-{name}.png") as temporary:
            Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).save(temporary)


def _save(figure: object, path: Path) -> None:
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=DPI)  # type: ignore[attr-defined]
    pyplot().close(figure)
