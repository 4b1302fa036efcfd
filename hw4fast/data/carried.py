"""What scikit-learn carries, read from its files: importing it takes 2 to 3 s, most of a small command's time.

Its own functions read them where another layout of the package has them elsewhere.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPHS = ("china.jpg", "flower.jpg")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """float64 [1797, 8, 8] of 0…16 and int64 [1797]: counts of dark pixels, and the digits that they are."""
    file = _file("data", "digits.csv.gz")
    if file is None:
        from sklearn.datasets import load_digits

        raw = load_digits()
        return raw.images, raw.target.astype(np.int64)
    with gzip.open(file, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",")
    return table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(np.int64)


def photograph(name: str) -> np.ndarray:
    """One of PHOTOGRAPHS, uint8 [427, 640, 3]."""
    file = _file("images", name)
    if file is None:
        from sklearn.datasets import load_sample_image

        return np.array(load_sample_image(name))
    with Image.open(file) as image:
        return np.array(image)


def _file(*names: str) -> Path | None:
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        return None
    file = Path(found.origin).with_name("datasets").joinpath(*names)
    return file if file.exists() else None
