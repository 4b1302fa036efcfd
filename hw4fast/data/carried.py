"""What scikit-learn and torchvision carry, read from their files: importing either takes 2 to 9 s, most of a small
command's time. Where another version has it elsewhere, scikit-learn's own functions are asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
REGISTERED = re.compile(r"^@register_model\(\)\n(?:.*\n)*?def (\w+)\(", re.MULTILINE)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """float64 [1797, 8, 8] of 0…16 and int64 [1797]: counts of dark pixels, and the digits that they are."""
    file = _file("sklearn", "datasets/data/digits.csv.gz")
    if file is None:
        from sklearn.datasets import load_digits

        raw = load_digits()
        return raw.images, raw.target.astype(np.int64)
    import gzip

    with gzip.open(file, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",")
    return table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(np.int64)


def photograph(name: str) -> np.ndarray:
    """One of PHOTOGRAPHS, uint8 [427, 640, 3]."""
    file = _file("sklearn", f"datasets/images/{name}")
    if file is None:
        from sklearn.datasets import load_sample_image

        return np.array(load_sample_image(name))
    with Image.open(file) as image:
        return np.array(image)


@cache
def architectures() -> tuple[str, ...]:
    """Names of torchvision's classification nets, in order; none where its source is laid out otherwise."""
    folder = _file("torchvision", "models")
    files = sorted(folder.glob("*.py")) if folder else []
    return tuple(sorted(name for file in files for name in REGISTERED.findall(file.read_text(encoding="utf-8"))))


def unknown_architecture(name: str, known: Sequence[str]) -> str | None:
    """None for one of the known, or where none are known, else a hint: the nearest of them."""
    if name in known or not known:
        return None
    import difflib

    *near, last = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or [""]
    meant = f"{', '.join(near)} or {last}" if near else last
    return f"did you mean {meant}?" if last else "torchvision.models.list_models() names them"


def _file(package: str, name: str) -> Path | None:
    """A file or folder of an installed package, if it is there."""
    found = find_spec(package)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / name
    return path if path.exists() else None
