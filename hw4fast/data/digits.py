"""`digits`: 1,797 real handwritten digits that scikit-learn carries, up-sampled from 8×8 to 28×28."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hw4fast.data import carried
from hw4fast.data.dataset import DATASETS, Dataset, Split
from hw4fast.data.preprocessing import Preprocessing

TEST_IMAGES = 360
SPLIT_SEED = 0


@DATASETS.register("digits")
def load() -> Dataset:
    """1,437 training and 360 test images, uint8 [n, 28, 28, 1]; the split is fixed.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998), as in
    scikit-learn: 8×8 counts of 0…16 dark pixels per 4×4 block.
    """
    counts, labels = carried.digits()
    images = np.stack([_enlarge(image) for image in counts])[..., None]
    order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(labels))
    train, test = order[TEST_IMAGES:], order[:TEST_IMAGES]
    return Dataset(
        name="digits",
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
        class_names=tuple(str(digit) for digit in range(10)),
        preprocessing=Preprocessing(mode="L", crop=(28, 28), mean=(0.3088,), std=(0.3488,)),
        source="scikit-learn's load_digits (UCI Optical Recognition of Handwritten Digits)",
    )


def _enlarge(image: np.ndarray) -> np.ndarray:
    """float [8, 8] of 0…16 → uint8 [28, 28]."""
    grey = np.round(image * (255 / 16)).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((28, 28), Image.Resampling.BICUBIC))
