"""Pictures of a run: its curves, and what its data look like."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from hw4fast.data import Split
from hw4fast.figures import OKABE_ITO, pyplot, wrapped
from hw4fast.files import writing
from hw4fast.stats import wilson
from hw4fast.training.runs import Epoch


def curves(history: list[Epoch], path: Path, title: str) -> None:
    """Cost and accuracy of the training images and of those held out against the epoch; the band, or after a single
    epoch the bar, is the latter accuracy's 95 % Wilson interval. A dotted line begins another stage.

    title: what was trained on what.
    """
    plt = pyplot()
    epochs = list(range(1, len(history) + 1))
    every = {"markevery": max(1, len(history) // 25)}
    split, _, correct, n = history[-1].held_out
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot(epochs, [row.train_cost for row in history], label="train (as it ran, with dropout)", **every)
    left.plot(epochs, [row.held_out[1] for row in history], label=split, **every)
    log = len(epochs) > 1 and min(min(row.train_cost, row.held_out[1]) for row in history) > 0
    left.set(xlabel="epoch", ylabel="cost", yscale="log" if log else "linear")
    left.legend(frameon=False)
    intervals = [wilson(right_ones, images) for _, _, right_ones, images in (row.held_out for row in history)]
    right.plot(epochs, [100 * row.train_accuracy for row in history], label="train (as it ran, with dropout)", **every)
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
    plt = pyplot()
    figure, axes = plt.subplots(2, 5, figsize=(6, 3.2), layout="constrained")
    for place, image, label in zip(axes.flat, split.images, split.labels, strict=False):
        place.imshow(image.squeeze(-1) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
        place.set_title(names[label], fontsize=9)
    for place in axes.flat:
        place.axis("off")
    figure.suptitle(f"The first {min(10, len(split.images))} test pictures, with their labels", fontsize=10)
    _save(figure, path)


def class_sheet(split: Split, names: tuple[str, ...], path: Path) -> None:
    """Of each of the first ten classes five pictures, with the classes' names."""
    plt = pyplot()
    classes, across = range(min(10, len(names))), 5
    figure, grid = plt.subplots(
        len(classes), across, figsize=(1.5 * across + 1.5, 1.45 * len(classes)), squeeze=False, layout="constrained"
    )
    for label, axes in zip(classes, grid, strict=True):
        for place, number in zip(axes, np.flatnonzero(split.labels == label), strict=False):
            place.imshow(_seen(split.images[number]), cmap="gray", vmin=0, vmax=255)
        for place in axes:
            place.set(xticks=[], yticks=[], frame_on=False)
        axes[0].set_ylabel(wrapped(names[label], 1.3, 8), fontsize=8, rotation=0, ha="right", va="center")
    figure.suptitle(f"Training pictures of the first {len(classes)} classes", fontsize=10)
    _save(figure, path)


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
    plt = pyplot()
    given = answers.argmax(1)
    wrong = np.flatnonzero(given != split.labels)
    worst = wrong[np.argsort(-answers[wrong, given[wrong]], kind="stable")][:20]
    columns, lines = 5, max(1, -(-len(worst) // 5))
    figure, grid = plt.subplots(lines, columns, figsize=(10, 2.5 * lines), squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, number in zip(grid.flat, worst, strict=False):
        axes.imshow(_seen(split.images[number]), cmap="gray", vmin=0, vmax=255)
        label, answer = split.labels[number], given[number]
        text = f"{names[answer]} {100 * answers[number, answer]:.0f} %\nis {names[label]}"
        axes.set_title("\n".join(wrapped(line, 1.9, 8) for line in text.split("\n")), fontsize=8)
    found = f"The {len(worst)} wrong answers it was surest of" if len(worst) else "No wrong answer"
    figure.suptitle(wrapped(f"{found}, of {len(wrong)} among {len(split)} test pictures ({title})", 9.6), fontsize=10)
    _save(figure, path)


def _seen(image: np.ndarray) -> np.ndarray:
    return image.squeeze(-1) if image.shape[2] == 1 else image


def samples(split: Split, names: tuple[str, ...], folder: Path) -> None:
    """The first ten images as PNG files of their own, `00-CLASS.png` …: something to classify."""
    for number, (image, label) in enumerate(zip(split.images[:10], split.labels, strict=False)):
        name = re.sub(r"[^\w-]", "_", names[label])
        with writing(folder / f"{number:02}-{name}.png") as temporary:
            Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).save(temporary)


def _save(figure: object, path: Path) -> None:
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=150)  # type: ignore[attr-defined]
    pyplot().close(figure)
