"""The lines that end an epoch: each of a few, of hundreds one a second and the last."""

from __future__ import annotations

import pytest

from hw4fast.training import progress
from hw4fast.training.runs import Epoch


def lines(epochs, seconds, monkeypatch, capsys, done=None):
    """What is said of `done` of so many epochs of so many seconds each."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Bar(100, epochs, 0, True) as bar:
        for number in range(1, (done or epochs) + 1):
            now[0] += seconds
            row = Epoch(number, "all", 0.5, 0.9, 0.9, seconds, test_cost=0.4, test_correct=95, test_images=100)
            bar.step(100, 0.5, 0.9)
            bar.say(row)
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]


def test_each_of_a_few_epochs_has_a_line(monkeypatch, capsys):
    said = lines(100, 0.01, monkeypatch, capsys)
    assert len(said) == 100
    assert said[0] == "epoch 1/100: train cost 0.5000, accuracy 90.00 %; test cost 0.4000, accuracy 95.00 %; 0.0 s"


@pytest.mark.parametrize(("seconds", "count"), [(0.02, 7), (2.0, 301)])
def test_of_many_there_is_one_a_second_and_the_last(seconds, count, monkeypatch, capsys):
    said = lines(1000, seconds, monkeypatch, capsys, done=301)
    assert len(said) == count
    assert said[0].startswith("epoch 1/1000") and said[-1].startswith("epoch 301/1000")
