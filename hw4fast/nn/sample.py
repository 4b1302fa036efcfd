"""sample and warp for batches of pictures, on the CPU or a GPU: the bytes of hw4fast.kernels.sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hw4fast.kernels import sample as card
from hw4fast.nn import cuda
from hw4fast.nn.operators import check_tensors, no_tensors


def warp(pictures: Tensor, matrices: np.ndarray, fill: int | None = None) -> Tensor:
    """Pictures, uint8 [n, h, w, 1 or 3], each through its homography, float64 [n, 3, 3], or all through one, [1, 3, 3]
    → the same shape, contiguous. See kernels.sample.warp.

    fill: the grey level beyond the border, where it is None the border's nearest pixel.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape or fill, NotImplementedError for a device other
    than the CPU and NVIDIA's GPUs.
    """
    _check(pictures, fill)
    matrices = np.ascontiguousarray(matrices, np.float64)
    n = len(pictures)
    if matrices.shape not in ((n, 3, 3), (1, 3, 3)):
        raise ValueError(f"matrices must be [{n} or 1, 3, 3], not {list(matrices.shape)}")
    if pictures.is_cuda:
        there = cuda.copied(matrices, pictures)
        given = there.data_ptr(), 9 if len(matrices) > 1 else 0, 0, (0, 0, 0), 0, (0, 0, 0)
        return _sample_cuda(pictures, pictures.shape[1:3], fill, *given)
    border = ("edge", 0) if fill is None else ("constant", fill)
    every = np.broadcast_to(matrices, (n, 3, 3))
    made = [card.warp(picture, matrix, *border) for picture, matrix in zip(pictures.numpy(), every, strict=True)]
    return _stacked(pictures, made, pictures.shape[1:3])


def sample(pictures: Tensor, rows: Sequence[float] | np.ndarray, columns: Sequence[float] | np.ndarray) -> Tensor:
    """Pictures, uint8 [n, h, w, 1 or 3], at the places where `rows` and `columns` cross, lines of float32 numbers
    → uint8 [n, len(rows), len(columns), c]; what lies beyond the border is its nearest pixel. See
    kernels.sample.sample.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, NotImplementedError as `warp` does.
    """
    _check(pictures, None)
    down, across = np.asarray(rows), np.asarray(columns)
    if down.dtype != np.float32 or across.dtype != np.float32:
        raise TypeError(f"rows and columns must be float32, not {down.dtype} and {across.dtype}")
    if down.ndim != 1 or across.ndim != 1:
        raise ValueError(f"rows and columns must be lines, not {list(down.shape)} and {list(across.shape)}")
    if pictures.is_cuda:
        rows_there, columns_there = (cuda.copied(line.copy(), pictures) for line in (down, across))
        places = rows_there.data_ptr(), (0, 1, 0), columns_there.data_ptr(), (0, 0, 1)
        return _sample_cuda(pictures, (len(down), len(across)), None, 0, 0, *places)
    y, x = (np.ascontiguousarray(places) for places in np.broadcast_arrays(down[:, None], across[None, :]))
    return _stacked(pictures, [card.sample(picture, y, x) for picture in pictures.numpy()], y.shape)


def _stacked(pictures: Tensor, made: Sequence[np.ndarray], size: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.stack(made)) if made else pictures.new_empty((0, *size, pictures.shape[3]))


def _check(pictures: Tensor, fill: int | None) -> None:
    if not isinstance(pictures, Tensor):
        raise no_tensors({"pictures": pictures})
    check_tensors("sample", pictures, cuda=True)
    if pictures.dtype is not torch.uint8:
        raise TypeError(f"pictures must be uint8, not {pictures.dtype}")
    if pictures.dim() != 4 or pictures.shape[3] not in card.CHANNELS or 0 in pictures.shape[1:]:
        raise ValueError(f"pictures must be [n, h, w, 1 or 3] with pixels, not {list(pictures.shape)}")
    if fill is not None and not 0 <= fill <= 255:
        raise ValueError(f"fill must lie in 0 … 255, not be {fill}")


def _sample_cuda(
    pictures: Tensor,
    size: Sequence[int],
    fill: int | None,
    matrices: int,
    matrix_stride: int,
    rows: int,
    row_strides: tuple[int, int, int],
    columns: int,
    column_strides: tuple[int, int, int],
) -> Tensor:
    """matrices, rows, columns: addresses there, of tensors that the caller holds until this returns."""
    pictures = pictures.contiguous()
    n, h, w, c = pictures.shape
    output = pictures.new_empty((n, *size, c))
    where = (pictures.data_ptr(), (n, h, w, c), output.data_ptr(), tuple(size), -1 if fill is None else fill)
    places = matrices, matrix_stride, rows, row_strides, columns, column_strides
    cuda.launch(cuda.module().sample, pictures, *where, *places)
    return output
