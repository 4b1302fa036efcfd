"""What scikit-learn carries is what its own functions give, and comes without them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from hw4fast.data import carried


@pytest.fixture(params=["its files", "its functions"])
def way(request, monkeypatch):
    if request.param == "its functions":
        monkeypatch.setattr(carried, "find_spec", lambda name: None)
    else:
        assert carried._file("data", "digits.csv.gz") and carried._file("images", "china.jpg")


def test_the_digits(way):
    from sklearn.datasets import load_digits

    counts, labels = carried.digits()
    raw = load_digits()
    assert counts.dtype == np.float64 and np.array_equal(counts, raw.images)
    assert labels.dtype == np.int64 and np.array_equal(labels, raw.target)


def test_the_photographs(way):
    from sklearn.datasets import load_sample_images

    raw = load_sample_images()
    for name, image in zip(carried.PHOTOGRAPHS, raw.images, strict=True):
        found = carried.photograph(name)
        assert found.dtype == np.uint8 and found.flags.writeable and np.array_equal(found, image)


def test_scikit_learn_is_not_imported():
    script = (
        "import sys; from hw4fast import data; data.load('digits'); data.carried.photograph('flower.jpg');"
        "print([name for name in ('sklearn', 'scipy', 'pandas') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
