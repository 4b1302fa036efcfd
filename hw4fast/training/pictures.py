"""Pictures of a run: its curves, and what its data look like."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from hw4fast.data import Split
from hw4fast.figures import OKABE_ITO, pyplot, wrapped
from hw4fast.files import writing
from hw4fast.stats import wilson
from hw4fast.training.runs import Epoch


def curves(history: list[Epoch], path: Path, title: str) -> None:
    """Train and test cost and accuracy against the epoch; the band, or after a single epoch the bar, is the test
    accuracy's 95 % Wilson interval.

    title: what was trained on what.
    """
    plt = pyplot()
    epochs = [row.epoch for row in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot(epochs, [row.train_cost for row in history], label="train (as it ran, with dropout)")
    left.plot(epochs, [row.test_cost for row in history], label="test")
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log" if len(epochs) > 1 else "linear")
    left.legend(frameon=False)
    intervals = [wilson(row.test_correct, row.test_images) for row in history]
    right.plot(epochs, [100 * row.train_accuracy for row in history], label="train (as it ran, with dropout)")
    right.plot(epochs, [100 * row.test_accuracy for row in history], label="test")
    low, high = ([100 * bound[side] for bound in intervals] for side in (0, 1))
    if len(epochs) == 1:
        right.vlines(epochs, low, high, color=OKABE_ITO[1], zorder=1)
    else:
        right.fill_between(epochs, low, high, color=OKABE_ITO[1], alpha=0.2, linewidth=0)
    right.set(xlabel="epoch", ylabel="accuracy (%)")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    last = history[-1]
    after = f"after {last.epoch} epoch{'s' * (last.epoch > 1)}"
    right_share = f"{100 * last.test_accuracy:.2f} % of {last.test_images} test pictures right"
    figure.suptitle(wrapped(f"{right_share} {after} ({title})", 8.6), fontsize=10)
    mark = "bar" if len(epochs) == 1 else "band"
    figure.supxlabel(f"{mark}: 95 % Wilson interval of the test accuracy, n = {last.test_images}", fontsize=7)
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
