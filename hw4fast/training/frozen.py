"""Features of a frozen net, computed once: an epoch of its last layer then costs next to nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hw4fast.data import Dataset
from hw4fast.files import cache_folder, memory_map, writing
from hw4fast.training.models.backbone import Tail, features, freeze, state_of_the_rest

BATCH = 32


class Features:
    """What a frozen net's classifier reads of a split: [rows] gives float32 [n, …] and labels int64 [n]."""

    def __init__(self, values: Tensor, labels: Tensor) -> None:
        self.values, self.labels = values, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        return self.values[rows], self.labels[rows]


def frozen(data: Dataset, model: nn.Module, splits: Sequence[Any], progress: bool) -> tuple[Tail, list[Features]]:
    """Freezes all of `model` but its last layer; its classifier, and the features of the splits (loop.Pictures).

    The features lie in the cache, keyed by the data and the frozen weights, and are mapped into memory from there.
    """
    freeze(model)
    tail = Tail(model)
    key = _key(data, model)
    found = []
    for split in splits:
        path = cache_folder() / "features" / f"{key}-{len(split)}-{_digest(split.labels)}.npy"
        if not path.is_file():
            with writing(path) as temporary:
                _compute(model, tail, split, temporary, progress)
        values = torch.from_numpy(np.load(path, mmap_mode="c"))
        found.append(Features(values.to(split.labels.device), split.labels))
    return tail, found


def _compute(model: nn.Module, tail: Tail, split: Any, path: Any, progress: bool) -> None:
    from tqdm import tqdm

    array, done = None, 0
    batches = (split[start : start + BATCH][0] for start in range(0, len(split), BATCH))
    with tqdm(total=len(split), unit="img", desc="frozen features", disable=None if progress else True) as bar:
        for values in features(model, tail, batches):
            if array is None:
                array = memory_map(path, np.float32, (len(split), *values.shape[1:]))
            array[done : done + len(values)] = values.cpu().numpy()
            done += len(values)
            bar.update(len(values))
    if array is not None:
        array.flush()


def _key(data: Dataset, model: nn.Module) -> str:
    digest = hashlib.sha256(f"{data.fingerprint}\0{torch.__version__}\0{type(model).__name__}".encode())
    for name, tensor in state_of_the_rest(model).items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


def _digest(labels: Tensor) -> str:
    return hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest()[:8]
