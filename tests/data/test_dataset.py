"""Data sets as such, and `digits`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw4fast.data import DATASETS, Split, load
from hw4fast.errors import UsageError
from tests.training.conftest import other_data


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4, 1), np.float32), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3, np.int64)),
    ],
)
def test_a_split_that_is_none(images, labels):
    with pytest.raises(ValueError, match="a split is uint8"):
        Split(images, labels)


def test_the_fingerprint_is_of_every_byte():
    digits = load("digits")
    labels = digits.train.labels.copy()
    labels[-1] = (labels[-1] + 1) % 10
    variants = [
        digits,
        other_data(digits),
        replace(digits, train=Split(digits.train.images, labels)),
        replace(digits, train=Split(digits.train.images[::-1], digits.train.labels)),
        replace(digits, train=digits.test, test=digits.train),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert digits.fingerprint == replace(digits, source="elsewhere").fingerprint


def test_an_unknown_name():
    with pytest.raises(UsageError, match="unknown data set 'minst'; did you mean mnist"):
        load("minst")
    assert {"digits", "mnist"} <= set(DATASETS)
