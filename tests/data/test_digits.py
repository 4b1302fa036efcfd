"""digits: real, split once and for all, enlarged without harm."""

from __future__ import annotations

import numpy as np
import pytest

from hw4fast.data import load


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_shapes_and_classes(digits):
    assert digits.train.images.shape == (1437, 28, 28, 1) and digits.test.images.shape == (360, 28, 28, 1)
    for split in (digits.train, digits.test):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        assert np.bincount(split.labels, minlength=10).min() > 25
    assert digits.class_names == tuple("0123456789") and load("digits") is digits


def test_the_split_is_all_of_scikit_learns_once(digits):
    from sklearn.datasets import load_digits

    raw = load_digits()
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    assert np.array_equal(np.bincount(labels), np.bincount(raw.target))
    images = np.concatenate([digits.train.images, digits.test.images])[..., 0].astype(float)
    # shrunk back by a mean over blocks, every picture is nearest to its own original, which has its label
    shrunk = images.reshape(-1, 4, 7, 4, 7).mean((2, 4))
    originals = raw.images.reshape(-1, 4, 2, 4, 2).mean((2, 4)) * 255 / 16
    distance = ((shrunk.reshape(-1, 1, 16) - originals.reshape(1, -1, 16)) ** 2).sum(2)
    nearest = distance.argmin(1)
    assert np.array_equal(raw.target[nearest], labels)
    assert len(set(nearest)) >= 1795  # a few digits are all but the same
    train, test = set(nearest[:1437]), set(nearest[1437:])
    assert len(train & test) <= 2


def test_the_split_never_changes(digits):
    assert digits.test.labels[:10].tolist() == [6, 6, 6, 2, 5, 6, 6, 2, 2, 1]
    assert digits.fingerprint == "909966e481b2d1c70471854e3dfe4193d210e4aa0643b283fe77220bfe0ce8a1"


def test_the_preprocessing_is_of_the_training_pixels(digits):
    x = digits.preprocessing.normalise(digits.train.images)
    assert abs(x.mean()) < 1e-3 and abs(x.std() - 1) < 1e-3 and x.shape == (1437, 1, 28, 28)
