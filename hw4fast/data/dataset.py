"""A data set as arrays: what training reads and what a study measures."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.registry import Registry


@dataclass(frozen=True)
class Split:
    """images: uint8 [n, h, w, c]; labels: int64 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or len(self.images) != len(self.labels):
            raise ValueError("a split is uint8 [n, h, w, c] with n labels")

    def __len__(self) -> int:
        return len(self.labels)


SINCE_THEN = ("antialias", "divisor")  # the same for every data set, and older runs' fingerprints don't have them


@dataclass(frozen=True)
class Dataset:
    """`preprocessing` is how every consumer of a model trained on it turns pictures into its input; `val` is what
    training may look at to know when to stop, where there is such a split; `left_out`: a line for each picture that
    can't be read."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    source: str
    val: Split | None = None
    left_out: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the bytes of all images and labels, in order, the class names and the preprocessing: a run
        whose data has another one can't be gone on with or exported."""
        said = {key: value for key, value in self.preprocessing.to_json().items() if key not in SINCE_THEN}
        reading = {"class_names": self.class_names, "preprocessing": said}
        digest = hashlib.sha256(json.dumps(reading, sort_keys=True).encode())
        for split in filter(None, (self.train, self.test, self.val)):
            digest.update(np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels).data)
        return digest.hexdigest()


# name → function without arguments that gives the Dataset, or the Pictures (see pictures.py) that make one
DATASETS: Registry = Registry("data set")
