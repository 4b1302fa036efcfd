"""`mnist`: the four original IDX files, from HW4FAST_DATA/mnist, the cache, or the mirrors that torchvision uses."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hw4fast.data.dataset import DATASETS, Dataset, Split
from hw4fast.data.preprocessing import Preprocessing
from hw4fast.errors import UserError
from hw4fast.files import cache_folder, data_folder, writing

# Mirrors and MD5 sums as torchvision.datasets.MNIST has them.
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801  # IDX: unsigned bytes, three or one dimensions
SIDES = {IMAGES_MAGIC: (28, 28), LABELS_MAGIC: ()}
CLASSES = 10
TIMEOUT_S = 20


@DATASETS.register("mnist")
def load() -> Dataset:
    """60,000 training and 10,000 test images, uint8 [n, 28, 28, 1].

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits"; mean and std of the training
    pixels as they are usually given. Raises UserError when the files can't be had or are damaged.
    """
    return _read(_folder())


def _read(folder: Path) -> Dataset:
    splits = []
    for prefix in ("train", "t10k"):
        images = _idx(folder / f"{prefix}-images-idx3-ubyte.gz", IMAGES_MAGIC)
        labels = _idx(folder / f"{prefix}-labels-idx1-ubyte.gz", LABELS_MAGIC)
        if len(images) != len(labels):
            raise UserError(f"{folder}: {len(images)} {prefix} images but {len(labels)} labels")
        if labels.max() >= CLASSES:
            raise UserError(f"{folder}: {prefix} labels go up to {labels.max()}, not to {CLASSES - 1}")
        splits.append(Split(images[..., None], labels.astype(np.int64)))
    return Dataset(
        name="mnist",
        train=splits[0],
        test=splits[1],
        class_names=tuple(str(digit) for digit in range(CLASSES)),
        preprocessing=Preprocessing(mode="L", crop=(28, 28), mean=(0.1307,), std=(0.3081,)),
        source="MNIST, the original IDX files",
    )


def _idx(path: Path, magic: int) -> np.ndarray:
    """The array [n, *SIDES] of one gzipped IDX file: big-endian magic, one int32 per dimension, then bytes."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or unreadable ({error}); delete it to fetch it again") from None
    sides = SIDES[magic]
    start = 4 * (2 + len(sides))
    n, rest = divmod(len(raw) - start, math.prod(sides))
    if n < 1 or rest or raw[:start] != np.array([magic, n, *sides], ">i4").tobytes():
        raise UserError(f"{path} is not an IDX file of the expected kind; delete it to fetch it again")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(n, *sides)


@dataclass(frozen=True)
class _Tried:
    place: str
    result: str


def _folder() -> Path:
    """Where all four files lie; downloads them to the cache if need be."""
    tried: list[_Tried] = []
    data = data_folder()
    for place, folder in (("HW4FAST_DATA", data and data / "mnist"), ("cache", cache_folder() / "mnist")):
        if folder is None:
            tried.append(_Tried(place, "is not set"))
        elif all((folder / name).is_file() for name in MD5):
            return folder
        else:
            tried.append(_Tried(f"{place} ({folder})", "lacks the four IDX files"))
    folder = cache_folder() / "mnist"
    for name, md5 in MD5.items():
        if not (folder / name).is_file() and not _download(name, md5, folder, tried):
            lines = "".join(f"\n  {attempt.place}: {attempt.result}" for attempt in tried)
            raise UserError(
                f"MNIST can't be had:{lines}\nPut the four files into a folder mnist/ and set HW4FAST_DATA to its"
                " parent, or use the data set that needs no files: digits"
            )
    return folder


def _download(name: str, md5: str, folder: Path, tried: list[_Tried]) -> bool:
    from http.client import HTTPException  # these bring ssl: 20 ms that nobody else should pay
    from urllib.request import urlopen

    mirrors = os.environ.get("HW4FAST_MNIST_MIRRORS", " ".join(MIRRORS)).split()
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            with urlopen(url, timeout=TIMEOUT_S) as response:
                content = response.read()
        except (OSError, ValueError, HTTPException) as error:
            tried.append(_Tried(url, str(error)))
            continue
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            tried.append(_Tried(url, "has a wrong MD5 sum"))
            continue
        with writing(folder / name) as temporary:
            temporary.write_bytes(content)
        return True
    return False
