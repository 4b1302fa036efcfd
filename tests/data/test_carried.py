"""What scikit-learn and torchvision carry is what its own functions give, and comes without them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from hw4fast.data import carried
from hw4fast.training.models.pretrained import architectures


@pytest.fixture(params=["its files", "its functions"])
def way(request, monkeypatch):
    if request.param == "its functions":
        monkeypatch.setattr(carried, "find_spec", lambda name: None)
    else:
        for package, name in (("sklearn", "datasets/data/digits.csv.gz"), ("torchvision", "models/resnet.py")):
            assert carried._file(package, name) is not None
    carried.architectures.cache_clear()
    yield
    carried.architectures.cache_clear()


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


def test_the_architectures(way):
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    assert list(architectures()) == known and len(known) >= 80
    assert all(carried.unknown_architecture(name, known) is None for name in known)
    assert carried.unknown_architecture("resnet_18", known) == "did you mean resnet18, resnet152 or resnet101?"
    assert "list_models()" in carried.unknown_architecture("nowhere", known)
    assert carried.unknown_architecture("nowhere", ()) is None


def test_nothing_large_is_imported():
    script = (
        "import sys; from hw4fast import data; data.load('digits'); data.carried.photograph('flower.jpg');"
        "data.carried.architectures();"
        "print([name for name in ('sklearn', 'scipy', 'pandas', 'torch', 'torchvision') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
