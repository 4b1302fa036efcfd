"""What resize is compared with: Pillow on the whole picture and then the crop, as torchvision's transforms do it;
Pillow given the box, so that it computes no more than we do; torchvision on a uint8 tensor, its own kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as torchvision

from hw4fast import kernels
from hw4fast.kernels import resize as card

OURS, PILLOW, BOXED, TORCHVISION = "hw4fast", "Pillow", "Pillow, box", "torchvision"
NAMES = (OURS, PILLOW, BOXED, TORCHVISION)
CASES = {case.name: case for case in card.BENCHMARK_CASES}


def candidates(case: card.Case, everything: bool = False) -> dict[str, Callable[[], object]]:
    """From a picture in memory to the bytes that a net reads, on as many threads as torch has. With `everything` also
    the bare kernel per instruction set and the numba variant."""
    picture, options = case.make()
    grey = picture.shape[2] == 1
    image = Image.fromarray(picture[:, :, 0] if grey else picture)
    (h, w, _), (height, width) = case.shape, case.size
    top, left, rows, columns = case.box or (0, 0, height, width)
    filters = Image.Resampling[case.interpolation.upper()]
    down, across = h / height, w / width
    source = (left * across, top * down, (left + columns) * across, (top + rows) * down)
    tensor, threads = torch.from_numpy(picture).permute(2, 0, 1), torch.get_num_threads()
    mode = torchvision.InterpolationMode[case.interpolation.upper()]

    def whole() -> np.ndarray:
        resized = image.resize((width, height), filters)
        return np.asarray(resized.crop((left, top, left + columns, top + rows)) if case.box else resized)

    def on_tensor() -> torch.Tensor:
        resized = torchvision.resize(tensor, [height, width], mode, antialias=True)
        return resized[:, top : top + rows, left : left + columns]

    found: dict[str, Callable[[], object]] = {
        OURS: lambda: card.resize(picture, **options, threads=threads),
        PILLOW: whole,
        BOXED: lambda: np.asarray(image.resize((columns, rows), filters, source)),
        TORCHVISION: on_tensor,
    }
    if everything:
        for isa in kernels.isas():
            found[f"kernel {isa}"] = lambda isa=isa: card.resize(picture, **options, isa=isa, threads=threads)
        found["numba"] = lambda: card.resize_numba(picture, **options)
    _check(found, whole().reshape(rows, columns, -1))
    return found


def _check(found: dict[str, Callable[[], object]], wanted: np.ndarray) -> None:
    """Pillow's bytes from every candidate; torchvision, whose weights have 16 bits, and a box of Pillow's, whose
    corners are float32, may be a level beside."""
    for name, run in found.items():
        result = np.asarray(run())
        result = result.transpose(1, 2, 0) if name == TORCHVISION else result.reshape(wanted.shape)
        error = np.abs(result.astype(int) - wanted).max()
        if error > (name in (BOXED, TORCHVISION)):
            raise AssertionError(f"{name} is wrong by {error}; nothing was timed")
