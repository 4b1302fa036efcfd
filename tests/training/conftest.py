"""A training that takes milliseconds: few digits, a narrow net, no pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hw4fast.data as datasets
from hw4fast.data import Dataset, Split, load
from hw4fast.training import pictures
from hw4fast.training.settings import Settings
from hw4fast.training.train import Result, train

NARROW: dict[str, Any] = {"channels": (2, 3), "epochs": 2, "batch_size": 16, "threads": 1}
Quick = Callable[..., Result]


def first(split: Split, n: int) -> Split:
    return Split(split.images[:n], split.labels[:n])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """`digits` cut to 75 training and 30 test images (75 = 4 batches of 16 and one of 11)."""
    digits = load("digits")
    cut = replace(digits, train=first(digits.train, 75), test=first(digits.test, 30))
    monkeypatch.setattr(datasets, "load", lambda *_: cut)
    return cut


@pytest.fixture
def quick(tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quick:
    """train() on `tiny` with a narrow net into tmp_path/run, without its pictures."""
    monkeypatch.setattr(pictures, "curves", lambda *_: None)
    monkeypatch.setattr(pictures, "contact_sheet", lambda *_: None)

    def run(resume: bool = False, out: Path = tmp_path / "run", **settings: Any) -> Result:
        return train(Settings(**{**NARROW, **settings}), out, resume, progress=False)

    return run


def other_data(data: Dataset) -> Dataset:
    """The same pictures but for one pixel."""
    images = np.array(data.test.images)
    images[0, 0, 0, 0] ^= 1
    return replace(data, test=Split(images, data.test.labels))
