"""correlate and zoom_blur for batches of pictures, on the CPU or a GPU: the bytes of hw4fast.kernels.correlate and
hw4fast.kernels.zoom_blur."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hw4fast.kernels import correlate as card
from hw4fast.kernels import zoom_blur as zoom_card
from hw4fast.nn import cuda
from hw4fast.nn.operators import check_pictures

Taps = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows, columns, weights


def correlate(pictures: Tensor, taps: Sequence[Taps], border: str = "mirror", rounding: str = "nearest") -> Tensor:
    """Pictures, uint8 [n, h, w, 1 or 3], each with its taps or all with one list → a new tensor of the same shape.

    taps: rows, columns and weights of each picture, n of them or one; border, rounding: see kernels.correlate.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape or value, NotImplementedError for a device other
    than the CPU and NVIDIA's GPUs.
    """
    _check("correlate", pictures)
    n = len(pictures)
    if len(taps) not in (1, n):
        raise ValueError(f"there must be {n} lists of taps or one, not {len(taps)}")
    if border not in card.BORDERS or rounding not in card.ROUNDINGS:
        raise ValueError(f"border must be one of {card.BORDERS} and rounding one of {card.ROUNDINGS}")
    if pictures.is_cuda:
        return _correlate_cuda(pictures, taps, border, rounding)
    every = taps if len(taps) == n else [taps[0]] * n
    output = torch.empty(pictures.shape, dtype=torch.uint8)
    for picture, each, out in zip(pictures.numpy(), every, output.numpy(), strict=True):
        out[...] = card.correlate(picture, *each, border=border, rounding=rounding)
    return output


def zoom_blur(pictures: Tensor, factors: Sequence[float] | np.ndarray) -> Tensor:
    """Pictures, uint8 [n, h, w, 1 or 3] → a new tensor of the same shape, each the mean of a picture and of its copies
    enlarged by the factors, as kernels.zoom_blur.zoom_blur has it. Raises as `correlate` does."""
    _check("zoom_blur", pictures)
    if pictures.is_cuda:
        return _zoom_blur_cuda(pictures, factors)
    output = torch.empty(pictures.shape, dtype=torch.uint8)
    for picture, out in zip(pictures.numpy(), output.numpy(), strict=True):
        out[...] = zoom_card.zoom_blur(picture, factors)
    return output


def _check(name: str, pictures: Tensor) -> None:
    check_pictures(name, pictures)
    if pictures.dim() != 4 or pictures.shape[3] not in (1, 3) or 0 in pictures.shape[1:]:
        raise ValueError(f"pictures must be [n, h, w, 1 or 3] with pixels, not {list(pictures.shape)}")


def _in_fixed_point(size: tuple[int, ...], taps: Taps) -> tuple[np.ndarray, int]:
    """int64 [taps, 4], row, column, weight and nothing, and the bits of the weights' unit."""
    rows, columns, weights = (np.asarray(t, d) for t, d in zip(taps, (np.int64, np.int64, np.float64), strict=True))
    fixed, unit = card.fixed_taps(size, rows, columns, weights)
    return np.stack([rows, columns, fixed, np.zeros_like(fixed)], 1), unit


_tables = lru_cache(16)(zoom_card.tables)  # batches that follow one another are zoomed alike


def _correlate_cuda(pictures: Tensor, taps: Sequence[Taps], border: str, rounding: str) -> Tensor:
    pictures = pictures.contiguous()
    output = torch.empty_like(pictures)
    if not len(pictures):
        return output
    lists, units = zip(*(_in_fixed_point(tuple(pictures.shape[1:3]), each) for each in taps), strict=True)
    together = np.concatenate(lists)
    reach = [max(0, int(end)) for at in (0, 1) for end in (-together[:, at].min(), together[:, at].max())]
    begins = np.cumsum([0, *map(len, lists)])
    numbers = np.concatenate([together.ravel(), begins, units]).astype(np.int32)  # one copy
    there = cuda.copied(numbers, pictures)
    begin = there.data_ptr() + 4 * together.size
    cuda.launch(
        cuda.module().correlate,
        pictures,
        pictures.data_ptr(),
        output.data_ptr(),
        tuple(pictures.shape),
        there.data_ptr(),
        begin,
        begin + 4 * len(begins),
        len(taps) == 1,
        max(units),
        reach,
        border == "mirror",
        rounding == "nearest",
    )
    return output


def _zoom_blur_cuda(pictures: Tensor, factors: Sequence[float] | np.ndarray) -> Tensor:
    pictures = pictures.contiguous()
    output = torch.empty_like(pictures)
    h, w = pictures.shape[1:3]
    table, copies, *how = _tables(h, w, tuple(map(float, factors)))
    there = cuda.copied(np.append(table, np.int32(0)), pictures)  # no copies, no table: an address, all the same
    cuda.launch(
        cuda.module().zoom_blur,
        pictures,
        pictures.data_ptr(),
        output.data_ptr(),
        tuple(pictures.shape),
        there.data_ptr(),
        there.data_ptr() + 8 * h * copies,
        copies,
        *how,
    )
    return output
