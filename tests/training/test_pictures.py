"""The pictures of a run say what they show, after one epoch as after many."""

from __future__ import annotations

import matplotlib.pyplot
import pytest

from hw4fast.data import load
from hw4fast.figures import pyplot
from hw4fast.training.pictures import contact_sheet, curves
from hw4fast.training.runs import Epoch


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


@pytest.mark.parametrize(("epochs", "mark", "after"), [(1, "bar", "after 1 epoch "), (12, "band", "after 12 epochs ")])
def test_the_caption_names_what_is_drawn(drawn, tmp_path, epochs, mark, after):
    curves(history(epochs), tmp_path / "curves.png", "digits, seed_cnn")
    assert drawn[0].get_supxlabel() == f"{mark}: 95 % Wilson interval of the test accuracy, n = 360"
    assert after in drawn[0].get_suptitle()
    (interval,) = drawn[0].axes[1].collections
    box = interval.get_datalim(drawn[0].axes[1].transData)
    assert box.height > 2  # percent: it can be seen


def test_the_contact_sheet_says_what_its_names_are(drawn, tmp_path):
    digits = load("digits")
    contact_sheet(digits.test, digits.class_names, tmp_path / "sheet.png")
    assert drawn[0].get_suptitle() == "The first 10 test pictures, with their labels"
