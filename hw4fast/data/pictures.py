"""Labelled picture files as a data set: decoded and fitted once, kept in the cache, read from there."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL

from hw4fast.data.dataset import Dataset, Split
from hw4fast.data.folder import EXTENSIONS, LABELS_FILE, read_folder
from hw4fast.data.images import read_picture
from hw4fast.data.preprocessing import Preprocessing
from hw4fast.errors import PassingError, UserError
from hw4fast.files import PART, cache_folder, memory_map, without_room, write_json, writing

SPLITS = ("train", "val", "test")
PICTURE_SETS: set[str] = set()  # names in DATASETS that give Pictures
MOST = 8 * 2**30  # bytes in the cache; what was used longest ago goes first
SHARES = (0.7, 0.15, 0.15)  # of each class, where nobody says which picture is for what


@dataclass(frozen=True)
class Pictures:
    """Picture files, none of them opened yet. labels: int64 [n]; splits: train, val or test for each."""

    name: str
    files: tuple[Path, ...]
    labels: np.ndarray
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        """Raises UserError for what can't be trained on: one class, or a class or a split without pictures."""
        if len(self.class_names) < 2:
            only = f" ('{self.class_names[0]}')" if self.class_names else ""
            raise UserError(f"{self.source} has one class only{only}; a classifier needs two or more")
        for split in SPLITS:
            if split not in self.splits:
                raise UserError(
                    f"{self.source} has no picture for {split}; it needs some in each of {', '.join(SPLITS)}"
                )
        seen = {int(label) for label, split in zip(self.labels, self.splits, strict=True) if split == "train"}
        without = [name for label, name in enumerate(self.class_names) if label not in seen]
        if without:
            more = f" and {len(without) - 3} more" if len(without) > 3 else ""
            raise UserError(f"{self.source}: no training picture of the class {', '.join(without[:3])}{more}")


def from_folder(path: str | Path) -> Pictures:
    """A folder with one sub-folder per class; or with train, val and test in it, each of that kind; or with a
    labels.csv that has the columns file, label (from 0) and split, and perhaps name (of the class).

    Without stated splits each class is split 70/15/15 in the order of a hash of the files' names: the same on every
    machine, and in any order of listing. Raises UserError for anything else, naming an empty class folder.
    """
    path = Path(path)
    if (path / LABELS_FILE).is_file():
        return _from_table(path)
    parts = [path / split for split in SPLITS]
    if all(part.is_dir() for part in parts):
        listed = [_class_folders(part) for part in parts]
        names = sorted({name for files in listed for name, _ in files})
        splits = [split for split, files in zip(SPLITS, listed, strict=True) for _ in files]
    else:
        listed = [_class_folders(path)]
        names = sorted({name for name, _ in listed[0]})
        splits = _split([name for name, _ in listed[0]], [file.relative_to(path) for _, file in listed[0]])
    pairs = [pair for files in listed for pair in files]
    labels = np.array([names.index(name) for name, _ in pairs], np.int64)
    name = path.resolve().name or "pictures"
    return Pictures(name, tuple(file for _, file in pairs), labels, tuple(splits), tuple(names), f"the folder '{path}'")


def _class_folders(path: Path) -> list[tuple[str, Path]]:
    """(class, picture) of every picture below `path`'s sub-folders."""
    empty = [
        inner.name
        for inner in sorted(path.iterdir())
        if inner.is_dir()
        and not inner.name.startswith((".", "__"))
        and not any(file.suffix.lower() in EXTENSIONS for file in inner.rglob("*"))
    ]
    if empty:
        raise UserError(f"the class folder '{path / empty[0]}' holds no picture; put some there, or take it away")
    folder = read_folder(path)
    if folder.class_names is None or folder.labels is None:
        raise UserError(f"'{path}' has no sub-folders; give each class its own, named like it")
    return [
        (folder.class_names[label], file)
        for label, file in zip(folder.labels, folder.files, strict=True)
        if label is not None
    ]


def _split(classes: Sequence[str], files: Sequence[Path]) -> list[str]:
    """train, val or test for each file: in each class in the order of a hash of the names, at least one of each."""
    order = sorted(range(len(files)), key=lambda n: hashlib.sha256(str(files[n]).encode(errors="replace")).digest())
    total, seen = Counter(classes), Counter[str]()
    splits = [""] * len(files)
    for n in order:
        count = total[classes[n]]
        held = [max(1, round(share * count)) for share in SHARES[1:]]
        place = seen[classes[n]]
        seen[classes[n]] += 1
        splits[n] = "test" if place < held[1] else "val" if place < sum(held) else "train"
    return splits


def _from_table(path: Path) -> Pictures:
    table = path / LABELS_FILE
    files, labels, splits, names = [], [], [], dict[int, str]()
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                files.append(path / row["file"])
                labels.append(int(row["label"]))
                splits.append(row["split"])
                names[labels[-1]] = row.get("name") or str(labels[-1])
    except KeyError as error:
        raise UserError(f"{table} has no column {error.args[0]}; training needs file, label and split") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{table} can't be read as a table of file, label, split: {error}") from None
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise UserError(f"{table} has the split '{unknown[0]}'; known: {', '.join(SPLITS)}")
    if not files or min(labels) < 0:
        raise UserError(f"{table} lists no picture, or a label below 0")
    classes = tuple(names.get(label, str(label)) for label in range(max(labels) + 1))
    name = path.resolve().name or "pictures"
    return Pictures(name, tuple(files), np.array(labels, np.int64), tuple(splits), classes, f"the folder '{path}'")


def fitted(pictures: Pictures, preprocessing: Preprocessing, progress: bool = True) -> Dataset:
    """The data set of all pictures, fitted to what a net reads; what can't be read is left out.

    Decoded once: the result lies in the cache, keyed by where the files lie, their sizes and times and the
    preprocessing, and is mapped into memory from there; unless a picture can't be read only now (see PassingError):
    then the next call tries again. Raises UserError when nothing, or none of a class's training pictures, is left.
    """
    pictures = _by_split(pictures)
    array = cache_folder() / "pictures" / f"{_key(pictures, preprocessing)}.npy"
    images, failures = _kept(array) or _decoded(pictures, preprocessing, array, progress)
    good = np.array([str(number) not in failures for number in range(len(pictures.files))])
    splits = np.array(pictures.splits)
    kept = {
        split: Split(_rows(images, good & (splits == split)), pictures.labels[good & (splits == split)])
        for split in SPLITS
    }
    files = tuple(file for file, readable in zip(pictures.files, good, strict=True) if readable)
    replace(
        pictures, files=files, labels=pictures.labels[good], splits=tuple(splits[good].tolist())
    )  # is checked again
    return Dataset(
        name=pictures.name,
        train=kept["train"],
        test=kept["test"],
        class_names=pictures.class_names,
        preprocessing=preprocessing,
        source=f"{len(pictures.files)} pictures of {pictures.name}",  # no path: it goes into exported files
        val=kept["val"],
        left_out=tuple(failures.values()),
    )


def _by_split(pictures: Pictures) -> Pictures:
    """The same with each split's pictures one after the other, so that a split is a piece of the mapped file."""
    order = sorted(range(len(pictures.files)), key=lambda number: SPLITS.index(pictures.splits[number]))
    return replace(
        pictures,
        files=tuple(pictures.files[number] for number in order),
        labels=pictures.labels[order],
        splits=tuple(pictures.splits[number] for number in order),
    )


def _rows(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """A view where the rows lie together, which they do when nothing was left out."""
    places = np.flatnonzero(chosen)
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return images[places[0] : places[-1] + 1]
    return images[places]


def _key(pictures: Pictures, preprocessing: Preprocessing) -> str:
    digest = hashlib.sha256(json.dumps([preprocessing.to_json(), PIL.__version__], sort_keys=True).encode())
    for file in pictures.files:
        try:
            status = file.stat()
        except OSError:
            raise UserError(f"the picture '{file}' of {pictures.source} is not there") from None
        times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"  # the latter can't be set by hand
        digest.update(os.fsencode(os.path.realpath(file)) + f"\0{status.st_size}\0{times}\n".encode())
    return digest.hexdigest()[:24]


def _kept(array: Path) -> tuple[np.ndarray, dict[str, str]] | None:
    """What `_decoded` gave another time; it counts as used now."""
    note = array.with_suffix(".json")
    try:
        failures = json.loads(note.read_text(encoding="utf-8"))
        images = np.load(array, mmap_mode="c")  # copy on write: torch wants memory that it may write
    except (OSError, ValueError, EOFError):  # it isn't there, or it is broken
        return None
    with suppress(OSError):  # a cache that may only be read
        os.utime(note)
    return images, failures


def _decoded(
    pictures: Pictures, preprocessing: Preprocessing, array: Path, progress: bool
) -> tuple[np.ndarray, dict[str, str]]:
    """uint8 [n, height, width, channels], and {number: why} of those that can't be read (rows of zeros). Both are kept
    for the next time, unless that may go better."""
    draft = array.with_stem(f"{array.stem}-{secrets.token_hex(4)}")
    failures, passing = _decode(pictures, preprocessing, draft, progress)
    if len(failures) == len(pictures.files):
        draft.unlink()
        raise UserError(f"no picture of {pictures.source} can be read: {failures['0']}")
    if not passing:
        draft.replace(array)
        write_json(array.with_suffix(".json"), failures)
        _make_room(array)
        return np.load(array, mmap_mode="c"), failures
    images = np.load(draft, mmap_mode="c")
    with suppress(OSError):  # Windows keeps what is mapped
        draft.unlink()
    return images, failures


def _decode(
    pictures: Pictures, preprocessing: Preprocessing, array: Path, progress: bool
) -> tuple[dict[str, str], bool]:
    """Writes the pictures; {number: why} of those that can't be read, and whether one of them perhaps can later."""
    from tqdm import tqdm

    def one(number: int) -> tuple[int, np.ndarray | Exception]:
        try:
            return number, preprocessing.fit(read_picture(pictures.files[number]))
        except (UserError, ValueError) as error:
            return number, error
        except MemoryError:
            return number, PassingError(f"'{pictures.files[number]}' doesn't fit into memory")

    failures: dict[str, str] = {}
    passing = False
    shape = (len(pictures.files), *preprocessing.crop, preprocessing.channels)
    with writing(array) as temporary:
        images = memory_map(temporary, np.uint8, shape)
        with ThreadPoolExecutor() as pool, tqdm(total=shape[0], unit="img", disable=None if progress else True) as bar:
            bar.set_description("reading pictures")
            for number, found in pool.map(one, range(shape[0])):
                if isinstance(found, Exception):
                    failures[str(number)] = str(found)
                    passing |= isinstance(found, PassingError)
                else:
                    images[number] = found
                bar.update()
        images.flush()
        del images
    return failures, passing


def _make_room(newest: Path) -> None:
    """Removes data sets of the cache until the rest takes no more than MOST, the ones used longest ago first."""
    entries = []
    for array in newest.parent.glob("*.npy"):
        with suppress(OSError):
            if PART not in array.name:  # else somebody is writing it
                note = array.with_suffix(".json")
                used = math.inf if array == newest else (note if note.exists() else array).stat().st_mtime
                entries.append((used, array.stat().st_size, array))
    for array in without_room(entries, MOST):
        with suppress(OSError):
            array.with_suffix(".json").unlink(missing_ok=True)
            array.unlink()
