"""sample and warp for batches of pictures, on the CPU or a GPU: the bytes of hw4fast.kernels.sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hw4fast.kernels import sample as card
from hw4fast.nn import cuda
from hw4fast.nn.operators import check_pictures, check_tensors, refuse_gradient

Places = Sequence[float] | np.ndarray | Tensor


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
        return _sample_cuda(pictures, pictures.shape[1:3], (-1 if fill is None else fill, False, False), *given)
    border = ("edge", 0) if fill is None else ("constant", fill)
    every = np.broadcast_to(matrices, (n, 3, 3))
    made = [card.warp(picture, matrix, *border) for picture, matrix in zip(pictures.numpy(), every, strict=True)]
    return _stacked(pictures, made, pictures.shape[1:3])


def sample(
    pictures: Tensor, rows: Places, columns: Places, border: str = "edge", fill: int = 0, rounding: str = "nearest"
) -> Tensor:
    """Pictures, uint8 [n, h, w, 1 or 3], between their pixels → uint8, contiguous. See kernels.sample.sample.

    rows, columns: float32 tensors [n, H, W] on the pictures' device, of any strides: each picture at its own places
    → [n, H, W, c]; or lines of float32 numbers: all where they cross → [n, len(rows), len(columns), c].
    border, fill, rounding: see kernels.sample. In a CUDA graph with tensors only.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape or value, NotImplementedError as `warp` does and
    where a gradient would be lost.
    """
    _check(pictures, fill)
    for name, value, known in (("border", border, card.BORDERS), ("rounding", rounding, card.ROUNDINGS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {list(known)}, not {value!r}")
    down, across = _places(pictures, rows, columns)
    size = down.shape[1:]
    if pictures.is_cuda:
        how = fill if border == "constant" else -1, border == "reflect", rounding == "down"
        places = down.data_ptr(), down.stride(), across.data_ptr(), across.stride()
        return _sample_cuda(pictures, size, how, 0, 0, *places)
    each = zip(pictures.numpy(), down.numpy(), across.numpy(), strict=True)
    return _stacked(pictures, [card.sample(*one, border, fill, rounding) for one in each], size)


def _places(pictures: Tensor, rows: Places, columns: Places) -> tuple[Tensor, Tensor]:
    """Both as [n, H, W] on the pictures' device."""
    n = len(pictures)
    if isinstance(rows, Tensor) and isinstance(columns, Tensor):
        check_tensors("sample", pictures, rows, columns, cuda=True)
        if rows.dtype is not torch.float32 or columns.dtype is not torch.float32:
            raise TypeError(f"rows and columns must be float32, not {rows.dtype} and {columns.dtype}")
        if rows.dim() != 3 or rows.shape != columns.shape or len(rows) != n:
            found = f"{list(rows.shape)} and {list(columns.shape)}"
            raise ValueError(f"rows and columns must be [{n}, H, W] both as tensors, not {found}")
        refuse_gradient("sample", rows, columns)
        return rows.detach().resolve_neg(), columns.detach().resolve_neg()
    if isinstance(rows, Tensor) or isinstance(columns, Tensor):
        raise TypeError("rows and columns must both be tensors, or both lines of numbers")
    down, across = np.asarray(rows), np.asarray(columns)
    if down.dtype != np.float32 or across.dtype != np.float32:
        raise TypeError(f"rows and columns must be float32, not {down.dtype} and {across.dtype}")
    if down.ndim != 1 or across.ndim != 1:
        raise ValueError(f"rows and columns must be lines, not {list(down.shape)} and {list(across.shape)}")
    y, x = (cuda.copied(line.copy(), pictures) for line in (down, across))
    size = n, len(down), len(across)
    return y[:, None].expand(size), x.expand(size)


def _stacked(pictures: Tensor, made: Sequence[np.ndarray], size: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.stack(made)) if made else pictures.new_empty((0, *size, pictures.shape[3]))


def _check(pictures: Tensor, fill: int | None) -> None:
    check_pictures("sample", pictures)
    if pictures.dim() != 4 or pictures.shape[3] not in card.CHANNELS or 0 in pictures.shape[1:]:
        raise ValueError(f"pictures must be [n, h, w, 1 or 3] with pixels, not {list(pictures.shape)}")
    if fill is not None and not 0 <= fill <= 255:
        raise ValueError(f"fill must lie in 0 … 255, not be {fill}")


def _sample_cuda(
    pictures: Tensor,
    size: Sequence[int],
    how: tuple[int, bool, bool],
    matrices: int,
    matrix_stride: int,
    rows: int,
    row_strides: tuple[int, ...],
    columns: int,
    column_strides: tuple[int, ...],
) -> Tensor:
    """how: the fill or −1, whether places are reflected, whether it is rounded down. matrices, rows, columns: addresses
    there, of tensors that the caller holds until this returns."""
    pictures = pictures.contiguous()
    n, h, w, c = pictures.shape
    output = pictures.new_empty((n, *size, c))
    where = pictures.data_ptr(), (n, h, w, c), output.data_ptr(), tuple(size), *how
    places = matrices, matrix_stride, rows, row_strides, columns, column_strides
    cuda.launch(cuda.module().sample, pictures, *where, *places)
    return output
