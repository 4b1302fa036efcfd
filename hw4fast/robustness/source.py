"""The pictures of a study: a data set's test split or a folder, with labels as the model counts its classes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hw4fast.data.folder import LABELS_FILE, Folder, read_folder, relabelled
from hw4fast.data.pictures import SPLITS
from hw4fast.errors import UsageError, UserError
from hw4fast.robustness.metrics import NO_LABEL


@dataclass(frozen=True)
class Source:
    """names: one per picture; labels_for: a model's labels → int64 [n], its class index of each picture or NO_LABEL,
    raising UserError where they are none of its;
    read: picture number → uint8 [h, w, 1 or 3], raising UserError where it can't be read;
    folder: that was named, None for a data set; held_out: whether these are but the test pictures of that folder.
    """

    name: str
    what: str
    names: Sequence[str]
    labels_for: Callable[[Sequence[str]], np.ndarray]
    read: Callable[[int], np.ndarray]
    folder: Path | None = None
    held_out: bool = False

    @property
    def identity(self) -> str:
        """What tells it from other sources: the data set's name, or where the folder lies."""
        return self.name if self.folder is None else self.folder.resolve().as_posix()


def open_source(source: str | Path, labels: str | Path | None = None) -> Source:
    """A registered data set by its name, else a folder by its path (`./digits` is the folder of that name).

    labels: a file that says what the folder's pictures show (see `label_file`), or "none": nothing is known of them.
    Raises UserError when it can't be had.
    """
    from hw4fast.data import DATASETS

    if isinstance(source, str) and source in DATASETS:
        if labels is not None:
            raise UsageError(f"the data set {source} has labels of its own; --labels is for folders")
        return _dataset(source)
    path = Path(source)
    if not path.exists():
        near = difflib.get_close_matches(str(source), DATASETS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"data sets: {', '.join(DATASETS)}"
        raise UsageError(f"'{source}' is neither a data set nor a folder of pictures; {hint}")
    folder = read_folder(_test_part(path))
    if str(labels) == "none":
        return _folder(replace(folder, labels=None, class_names=None), path)
    return _folder(folder if labels is None else relabelled(folder, Path(labels)), path)


def _test_part(path: Path) -> Path:
    """Of a folder that is split as for `train`, into train, val and test, that with the test pictures."""
    if not path.is_dir() or (path / LABELS_FILE).exists():
        return path
    inside = {each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith((".", "__"))}
    return path / "test" if inside == set(SPLITS) else path


def choose(n: int, limit: int | None, seed: int) -> np.ndarray:
    """Which of `n` pictures are studied, ascending: the first `limit` of a shuffle that `seed` fixes; None = all."""
    if limit is None:
        return np.arange(n)
    if limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    order = np.random.Generator(np.random.Philox(seed)).permutation(n)
    return np.sort(order[:limit])


def match_labels(theirs: Sequence[str], models: Sequence[str], where: str) -> np.ndarray:
    """int64 [len(theirs)]: the model's index of each class name; case, `_` and `-` for a space don't count.

    Raises UserError listing the nearest of the model's labels for the names that it doesn't know.
    """
    known = {_plain(name): index for index, name in reversed(list(enumerate(models)))}
    known |= {name: index for index, name in reversed(list(enumerate(models)))}
    unknown = [name for name in theirs if name not in known and _plain(name) not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], models, n=3, cutoff=0.5)
        others = len(unknown) - 1
        more = f" (nor {'is' if others == 1 else 'are'} {others} more)" if others else ""
        like = f"nearest: {', '.join(near)}" if near else f"which begin with {', '.join(models[:3])}"
        raise UserError(
            f"{where} has the class '{unknown[0]}', which is not among the model's {len(models)} labels{more}; {like}."
            " Is this the right model? Name the classes as it does, or leave a folder's labels out with --labels none"
        )
    return np.array([known.get(name, known.get(_plain(name))) for name in theirs], np.int64)


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")


def _dataset(name: str) -> Source:
    from hw4fast.data import load, of_pictures

    if of_pictures(name):
        return _pictures(name)
    dataset = load(name)
    split = dataset.test
    return Source(
        name=name,
        what=f"the test pictures of {name}",
        names=[f"test/{number}" for number in range(len(split))],
        labels_for=lambda models: match_labels(dataset.class_names, models, f"the data set {name}")[split.labels],
        read=lambda number: split.images[number],
    )


def _pictures(name: str) -> Source:
    """The test pictures as they are in their files: the model's card says how they are fitted."""
    from hw4fast.data import DATASETS
    from hw4fast.data.images import read_picture

    found = DATASETS.get(name)()
    tests = [number for number, split in enumerate(found.splits) if split == "test"]
    return Source(
        name=name,
        what=f"the test pictures of {name}",
        names=[f"test/{found.files[number].name}" for number in tests],
        labels_for=lambda models: match_labels(found.class_names, models, f"the data set {name}")[found.labels[tests]],
        read=lambda place: read_picture(found.files[tests[place]]),
    )


def _folder(folder: Folder, named: Path) -> Source:
    """named: that which was asked for; the pictures may be a part of it."""
    from hw4fast.data.images import read_picture

    name, held_out = named.resolve().name or "pictures", folder.path != named
    return Source(
        name=name,
        what=f"the {'test ' * held_out}pictures in the folder {name}",
        names=[folder.name(number) for number in range(len(folder.files))],
        labels_for=lambda models: _folder_labels(folder, models),
        read=lambda number: read_picture(folder.files[number]),
        folder=named,
        held_out=held_out,
    )


def _folder_labels(folder: Folder, model_labels: Sequence[str]) -> np.ndarray:
    if folder.labels is None:
        return np.full(len(folder.files), NO_LABEL, np.int64)
    labels = np.array([NO_LABEL if label is None else label for label in folder.labels], np.int64)
    if folder.class_names is not None:
        return match_labels(folder.class_names, model_labels, f"the folder '{folder.path}'")[labels]
    if labels.max() >= len(model_labels):
        raise UserError(
            f"the labels of '{folder.path}' go up to {labels.max()}, but the model knows the classes "
            f"0 … {len(model_labels) - 1}; is this the right model?"
        )
    return labels
