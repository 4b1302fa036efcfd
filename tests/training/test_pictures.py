"""The pictures of a run say what they show, after one epoch as after many."""

from __future__ import annotations

import matplotlib.pyplot
import numpy as np
import pytest

from hw4fast.data import Split, load
from hw4fast.figures import pyplot
from hw4fast.training.pictures import class_sheet, contact_sheet, curves, mistakes
from hw4fast.training.runs import Epoch
from tests.drawings import crossing, inside


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are closed during a test."""
    figures = []
    monkeypatch.setattr(pyplot(), "close", figures.append)
    yield figures
    monkeypatch.undo()
    matplotlib.pyplot.close("all")


def history(epochs):
    return [
        Epoch(n, "all", 1 / n, 0.8, 0.8, 1.0, test_cost=0.9 / n, test_correct=300 + n, test_images=360)
        for n in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 3, 12])
def test_epochs_are_whole_numbers(drawn, tmp_path, epochs):
    curves(history(epochs), tmp_path / "curves.png", "digits, seed_cnn")
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize(("epochs", "scale"), [(1, "linear"), (2, "linear"), (12, "log")])
@pytest.mark.parametrize("dropout", [True, False])
def test_the_legend_knows_of_dropout_and_the_axis_of_its_range(drawn, tmp_path, epochs, scale, dropout):
    curves(history(epochs), tmp_path / "curves.png", "digits, seed_cnn", dropout)
    left = drawn[0].axes[0]
    assert left.get_yscale() == scale
    first = left.get_legend().get_texts()[0].get_text()
    assert first == ("train (as it ran, with dropout)" if dropout else "train (as it ran)")


@pytest.mark.parametrize(("epochs", "mark", "after"), [(1, "bar", "after 1 epoch "), (12, "band", "after 12 epochs ")])
def test_the_caption_names_what_is_drawn(drawn, tmp_path, epochs, mark, after):
    curves(history(epochs), tmp_path / "curves.png", "digits, seed_cnn")
    assert drawn[0].get_supxlabel() == f"{mark}: 95 % Wilson interval of the test accuracy, n = 360"
    assert after in drawn[0].get_suptitle()
    (interval,) = drawn[0].axes[1].collections
    box = interval.get_datalim(drawn[0].axes[1].transData)
    assert box.height > 2  # percent: it can be seen


@pytest.mark.parametrize("wrong", [0, 3, 40])
@pytest.mark.parametrize("shape", [(28, 28, 1), (40, 90, 3)])
def test_sheets_of_few_and_of_many(drawn, tmp_path, shape, wrong):
    """Classes without a picture are left out, and no mistake is told, too."""
    names = ("corn", "a class whose name is rather long", "none of this", "$x^$")
    labels = np.array([0, 1, 3, 0] * 10)
    split = Split(np.random.default_rng(0).integers(0, 256, (40, *shape), np.uint8), labels)
    answers = np.eye(4)[np.where(np.arange(40) < wrong, (labels + 1) % 4, labels)]
    contact_sheet(split, names, tmp_path / "contact.png")
    class_sheet(split, names, tmp_path / "classes.png")
    mistakes(split, answers, names, tmp_path / "mistakes.png", "photos, a net")
    titles = [figure.get_suptitle() for figure in drawn]
    assert titles[:2] == ["The first 10 test pictures, with their labels", "Training pictures of the first 3 classes"]
    found = f"The {min(wrong, 20)} wrong answers it was surest of" if wrong else "No wrong answer"
    assert titles[2].replace("\n", " ") == f"{found}, of {wrong} among 40 test pictures (photos, a net)"
    assert [len(figure.axes[0].images) for figure in drawn] == [10, 15, min(wrong, 20)]
    assert all(inside(figure) and not crossing(figure) for figure in drawn)


def test_the_contact_sheet_says_what_its_names_are(drawn, tmp_path):
    digits = load("digits")
    contact_sheet(digits.test, digits.class_names, tmp_path / "sheet.png")
    assert drawn[0].get_suptitle() == "The first 10 test pictures, with their labels"
