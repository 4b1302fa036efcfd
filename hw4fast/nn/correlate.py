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
from hw4fast.nn.operators import check_tensors, no_tensors

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
    zoom_card.check_factors(factors)
    if pictures.is_cuda:
        return _zoom_blur_cuda(pictures, factors)
    output = torch.empty(pictures.shape, dtype=torch.uint8)
    for picture, out in zip(pictures.numpy(), output.numpy(), strict=True):
        out[...] = zoom_card.zoom_blur(picture, factors)
    return output


def _check(name: str, pictures: Tensor) -> None:
    if not isinstance(pictures, Tensor):
        raise no_tensors({"pictures": pictures})
    check_tensors(name, pictures, cuda=True)
    if pictures.dtype is not torch.uint8:
        raise TypeError(f"pictures must be uint8, not {pictures.dtype}")
    if pictures.dim() != 4 or pictures.shape[3] not in (1, 3) or 0 in pictures.shape[1:]:
        raise ValueError(f"pictures must be [n, h, w, 1 or 3] with pixels, not {list(pictures.shape)}")


def _in_fixed_point(size: tuple[int, ...], taps: Sequence[Taps]) -> list[tuple[np.ndarray, int]]:
    """Of each list: int64 [taps, 4], row, column, weight and nothing, and the bits of the weights' unit."""
    dtypes = (np.int64, np.int64, np.float64)
    lists = [[np.asarray(line, dtype) for line, dtype in zip(each, dtypes, strict=True)] for each in taps]
    if len(lists) == 1:
        return [_kept(size, *(line.tobytes() for line in lists[0]))]
    return [_made(size, *each) for each in lists]


def _made(size: tuple[int, ...], rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, int]:
    fixed, unit = card.fixed_taps(size, rows, columns, weights)
    return np.stack([rows, columns, fixed, np.zeros_like(fixed)], 1), unit


@lru_cache(16)  # batches that follow one another are blurred alike
def _kept(size: tuple[int, ...], rows: bytes, columns: bytes, weights: bytes) -> tuple[np.ndarray, int]:
    places = np.frombuffer(rows, np.int64), np.frombuffer(columns, np.int64)
    return _made(size, *places, np.frombuffer(weights, np.float64))


@lru_cache(16)
def _zoomed_lines(h: int, w: int, factors: tuple[float, ...]) -> tuple[np.ndarray, int]:
    """int32: first and next of every place of all copies' rows, then of their columns, and one number more; how many
    copies there are that aren't the picture itself."""
    enlarged = [f for f in factors if not (zoom_card.is_whole(h, f) and zoom_card.is_whole(w, f))]
    lines = [np.stack(zoom_card.line_of(n, f), 1).ravel() for n in (h, w) for f in enlarged]
    return np.concatenate([*lines, [0]]).astype(np.int32), len(enlarged)


def _correlate_cuda(pictures: Tensor, taps: Sequence[Taps], border: str, rounding: str) -> Tensor:
    pictures = pictures.contiguous()
    output = torch.empty_like(pictures)
    if not len(pictures):
        return output
    lists, units = zip(*_in_fixed_point(tuple(pictures.shape[1:]), taps), strict=True)
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
    numbers, enlarged = _zoomed_lines(h, w, tuple(map(float, factors)))
    there = cuda.copied(numbers, pictures)
    own, all_of_them = len(factors) - enlarged + 1, len(factors) + 1
    cuda.launch(
        cuda.module().zoom_blur,
        pictures,
        pictures.data_ptr(),
        output.data_ptr(),
        tuple(pictures.shape),
        there.data_ptr(),
        there.data_ptr() + 8 * h * enlarged,
        enlarged,
        own << zoom_card.END_BITS,
        zoom_card.lost(enlarged),
        float(np.float32(1) / np.float32(all_of_them << zoom_card.END_BITS)),
    )
    return output
