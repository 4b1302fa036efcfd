"""`flowers`: Oxford 102 Flowers, from HW4FAST_DATA/flowers102 or the files that torchvision's loader fetches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hw4fast.data.dataset import DATASETS
from hw4fast.data.folder import LABELS_FILE
from hw4fast.data.pictures import PICTURE_SETS, Pictures, from_folder
from hw4fast.errors import UserError
from hw4fast.files import cache_folder, data_folder

OFFICIAL = "flowers-102"  # torchvision's folder for the official files
CLASSES = 102
PICTURE_SETS.add("flowers")


@DATASETS.register("flowers")
def load() -> Pictures:
    """8,189 photographs of 102 kinds of flowers, 10 of each for training and 10 for validation; or what of them
    HW4FAST_DATA/flowers102 holds (its labels.csv names files, labels and splits).

    Source: M.-E. Nilsback, A. Zisserman, "Automated flower classification over a large number of classes", ICVGIP
    2008. Raises UserError when the files can't be had.
    """
    data = data_folder()
    if data and (data / "flowers102" / LABELS_FILE).is_file():
        return replace(from_folder(data / "flowers102"), name="flowers")
    root = cache_folder() / OFFICIAL
    if not (root / "setid.mat").is_file() or not (root / "imagelabels.mat").is_file():
        where = str(data / "flowers102") if data else "HW4FAST_DATA, which is not set,"
        raise UserError(
            f"Oxford 102 Flowers can't be had: neither {where} nor {root} holds them; torchvision's loader fetches"
            f" them: python -c 'import torchvision; torchvision.datasets.Flowers102(\"{root.parent}\", download=True)'"
        )
    from scipy.io import loadmat  # type: ignore[import-untyped]

    labels = loadmat(root / "imagelabels.mat")["labels"][0].astype(np.int64) - 1
    numbers = loadmat(root / "setid.mat")
    chosen = [
        (int(number), split)
        for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
        for number in numbers[key][0]
    ]
    return Pictures(
        name="flowers",
        files=tuple(root / "jpg" / f"image_{number:05}.jpg" for number, _ in chosen),
        labels=labels[[number - 1 for number, _ in chosen]],
        splits=tuple(split for _, split in chosen),
        class_names=tuple(f"flower {number}" for number in range(1, CLASSES + 1)),
        source="Oxford 102 Flowers, the official files",
    )
