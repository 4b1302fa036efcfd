"""Data sets as arrays and paths. A data set is one file here that registers one loader."""

from hw4fast.data import digits, mnist
from hw4fast.data.dataset import DATASETS, Dataset, Split
from hw4fast.data.preprocessing import Preprocessing

__all__ = ["DATASETS", "Dataset", "Preprocessing", "Split", "digits", "load", "mnist"]


def load(name: str) -> Dataset:
    """The data set of that name. Raises UsageError for an unknown name, UserError when it can't be had."""
    return DATASETS.get(name)()
