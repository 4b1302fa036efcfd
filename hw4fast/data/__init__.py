"""Data sets as arrays and paths. A data set is one file here that registers its loader."""

from hw4fast.data.dataset import DATASETS, Dataset, Split
from hw4fast.data.preprocessing import Preprocessing
from hw4fast.registry import import_folder

import_folder(__name__, __path__)

__all__ = ["DATASETS", "Dataset", "Preprocessing", "Split", "load"]


def load(name: str) -> Dataset:
    """The data set of that name. Raises UsageError for an unknown name, UserError when it can't be had."""
    return DATASETS.get(name)()
