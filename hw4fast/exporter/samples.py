"""Pictures for int8: those on which its ranges are measured, and others on which it is judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hw4fast.data.folder import LABELS_FILE, read_folder
from hw4fast.data.images import read_picture
from hw4fast.data.preprocessing import Preprocessing
from hw4fast.errors import UserError
from hw4fast.exporter.source import Source
from hw4fast.files import data_folder
from hw4fast.paths import one_line, printable

T = TypeVar("T")
MOST = 256  # pictures to calibrate on; four times as many as the photographs changed nothing that could be told apart


@dataclass(frozen=True)
class Calibration:
    """pictures: uint8 [n, h, w, c], fitted; origin: where they are from, in words; left_out: a line for each that
    can't be read."""

    pictures: np.ndarray
    origin: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """pictures: uint8 [n, h, w, c], fitted, none of them calibrated on; labels: int64 [n]."""

    pictures: np.ndarray
    labels: np.ndarray


def calibration(source: Source, folder: str | Path | None) -> Calibration:
    """The pictures of `folder`; by default a run's training pictures, for an architecture the photographs that it is
    checked on. Of more than MOST, so many at even distances.

    Raises UserError for a folder without pictures, or without one that can be read.
    """
    if folder is not None:
        read, left_out = _read(_spread(read_folder(folder).files), source.preprocessing)
        if not read:
            raise UserError(f"no picture of the folder '{folder}' can be read: {left_out[0]}")
        origin = f"the folder {printable(Path(folder).resolve().name)}"
        return Calibration(np.stack(list(read.values())), origin, tuple(left_out))
    if source.dataset is None:
        return Calibration(source.pictures, "the photographs that it is checked on")
    images = source.dataset.train.images
    fitted = [source.preprocessing.fit(images[number]) for number in _spread(range(len(images)))]
    return Calibration(np.stack(fitted), "training pictures")


def judged(source: Source, calibrated: np.ndarray) -> Iterator[tuple[str, Judged]]:
    """By name, labelled pictures of which none is in `calibrated`: a run's test split, or for an architecture each
    folder of HW4FAST_DATA/photos with a labels.csv. Those without a label, or that can't be read, are left out."""
    seen = {_fingerprint(picture) for picture in calibrated}
    if source.dataset is not None:
        test = source.dataset.test
        yield from _fresh("test", map(source.preprocessing.fit, test.images), test.labels, seen)
        return
    data = data_folder()
    for table in sorted((data / "photos").glob(f"*/{LABELS_FILE}")) if data else ():
        folder = read_folder(table.parent)
        pairs = zip(folder.files, folder.labels or (), strict=True)
        labels = {file: label for file, label in pairs if label is not None and label < len(source.labels)}
        read, _ = _read(list(labels), source.preprocessing)
        yield from _fresh(table.parent.name, read.values(), (labels[file] for file in read), seen)


def _fresh(
    name: str, pictures: Iterable[np.ndarray], labels: Iterable[Any], seen: set[bytes]
) -> Iterator[tuple[str, Judged]]:
    pairs = [
        (picture, label) for picture, label in zip(pictures, labels, strict=True) if _fingerprint(picture) not in seen
    ]
    if pairs:
        yield name, Judged(np.stack([picture for picture, _ in pairs]), np.array([label for _, label in pairs]))


def _fingerprint(picture: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture).data).digest()


def _spread(items: Sequence[T]) -> list[T]:
    """At most MOST of them, at even distances: many folders are sorted by class."""
    if len(items) <= MOST:
        return list(items)
    return [items[number] for number in np.linspace(0, len(items) - 1, MOST).round().astype(int)]


def _read(files: Sequence[Path], preprocessing: Preprocessing) -> tuple[dict[Path, np.ndarray], list[str]]:
    """{file: fitted picture}, and a line for each that can't be read."""
    from tqdm import tqdm

    read, left_out = {}, []
    for file in tqdm(files, "reading pictures", unit="img", disable=None, leave=False):
        try:
            read[file] = preprocessing.fit(read_picture(file))
        except UserError as error:  # it names the file
            left_out.append(str(error))
        except ValueError as error:
            left_out.append(f"'{one_line(file)}': {error}")
    return read, left_out
