"""Data sets as arrays and paths. A data set is one file here that registers its loader."""

from functools import cache
from pathlib import Path

from hw4fast.data.dataset import DATASETS, Dataset, Split
from hw4fast.data.pictures import PICTURE_SETS, Pictures, fitted, from_folder
from hw4fast.data.preprocessing import Preprocessing, preset
from hw4fast.errors import UsageError
from hw4fast.files import cache_folder, data_folder
from hw4fast.registry import import_folder

import_folder(__name__, __path__)

__all__ = ["DATASETS", "Dataset", "Preprocessing", "Split", "forget", "load", "of_pictures"]


def load(name: str, preprocess: str | None = None, progress: bool = False) -> Dataset:
    """The data set of that name, or the folder of that path with labelled pictures (see pictures.from_folder).

    preprocess: of pictures, a preset's name, "imagenet" if None; a data set of arrays has its own. Raises UsageError
    for an unknown name, UserError when it can't be had.
    """
    path = Path(name)
    found = from_folder(path) if name not in DATASETS and path.is_dir() else _kept(name, data_folder(), cache_folder())
    if isinstance(found, Dataset):
        if preprocess:
            raise UsageError(f"the data set {name} has its own preprocessing; take --preprocess away")
        return found
    return fitted(found, preset(preprocess or "imagenet"), progress)


def of_pictures(name: str) -> bool:
    """Whether that data set is one of picture files. False, too, for a name that `load` would refuse."""
    return name in PICTURE_SETS if name in DATASETS else Path(name).is_dir()


@cache
def _kept(name: str, *_: Path | None) -> Dataset | Pictures:
    """What the loader of that name gives, read once for each place where it looks."""
    return DATASETS.get(name)()


def forget() -> None:
    """Lets go of the data sets that are kept in memory: the next `load` reads them anew."""
    _kept.cache_clear()
