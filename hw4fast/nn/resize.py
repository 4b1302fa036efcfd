"""resize as a torch operator and a function: pictures on the CPU or a GPU to what a net reads, Pillow's very bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hw4fast.kernels import compiled
from hw4fast.kernels import resize as card
from hw4fast.nn import cuda
from hw4fast.nn.operators import check_tensors, library, no_tensors, threads

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

library.define(
    "resize(Tensor pictures, int[2] size, int[4] box, str interpolation, float[] mean, float[] std,"
    " ScalarType dtype) -> Tensor"
)
_resize = torch.ops.hw4fast.resize.default


def _output(pictures: Tensor, box: Sequence[int], mean: Sequence[float], dtype: torch.dtype) -> Tensor:
    n, c = pictures.shape[0], pictures.shape[3]
    if mean:
        return pictures.new_empty((n, c, *box[2:]), dtype=dtype)
    return pictures.new_empty((n, *box[2:], c))


def _resize_cpu(
    pictures: Tensor,
    size: list[int],
    box: list[int],
    interpolation: str,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
) -> Tensor:
    output = _output(pictures, box, mean, torch.float32)
    top, left, rows, columns = box
    for picture, out in zip(pictures.numpy(), output.numpy(), strict=True):
        card.resize(
            picture,
            (size[0], size[1]),
            (top, left, rows, columns),
            interpolation,
            mean or None,
            std or None,
            threads=threads(),
            out=out,
        )
    return output.to(dtype) if mean else output


@lru_cache(256)
def _table_on(device: torch.device, *line: int | str) -> tuple[Tensor, np.ndarray]:
    """Inputs and weights of a line, int32, there and here. Kept: a later call, and a CUDA graph captured after one,
    copies nothing from the host."""
    here = np.array(compiled().resize_table(*line), np.int32)
    return torch.from_numpy(here).to(device, copy=True), here


def _resize_cuda(
    pictures: Tensor,
    size: Sequence[int],
    box: Sequence[int],
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    output = _output(pictures, box, mean, dtype)
    _resize_into(output, pictures, size, box, interpolation, mean, std)
    return output


def _resize_into(
    output: Tensor,
    pictures: Tensor,
    size: Sequence[int],
    box: Sequence[int],
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """pictures: [n, h, w, c] of the output's n."""
    n, h, w, c = pictures.shape
    if n == 0:
        return
    if pictures.stride(3) != 1 or pictures.stride(2) != c:
        pictures = pictures.contiguous()
    top, left, rows, columns = box
    down, down_here = _table_on(pictures.device, interpolation, h, size[0], top, rows)
    across, across_here = _table_on(pictures.device, interpolation, w, size[1], left, columns)
    cuda.keep_for_graphs(down, across)
    cuda.launch(
        cuda.module().resize,
        pictures,
        cuda.CODES[output.dtype],
        pictures.data_ptr(),
        pictures.stride(0),
        pictures.stride(1),
        output.data_ptr(),
        n,
        c,
        (rows, columns),
        (down.data_ptr(), across.data_ptr()),
        (down_here.ctypes.data, across_here.ctypes.data),
        card.down_first(h, w, size[0], size[1]),
        mean,
        std,
    )


library.impl("resize", _resize_cpu, "CPU")
library.impl("resize", _resize_cuda, "CUDA")
torch.library.register_fake(
    "hw4fast::resize",
    lambda pictures, size, box, interpolation, mean, std, dtype: _output(pictures, box, mean, dtype),
    lib=library,
)


def resize(
    pictures: Tensor | Sequence[Tensor],
    size: tuple[int, int],
    box: card.Box | None = None,
    interpolation: str = "bilinear",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Pictures resized as Pillow does it, byte for byte, and normalised: a batch for a net.

    pictures: uint8 [n, h, w, 1 or 3], or a list of [h, w, 1 or 3] whose sides may differ. size: (height, width) of the
    whole result. box: (top, left, height, width) of what is wanted of it; all if None. interpolation: "box",
    "bilinear", "bicubic" or "lanczos".
    → uint8 [n, height, width, c]; with mean and std, a value per channel, [n, c, height, width] of `dtype` (float32,
    float16, bfloat16): (byte / 255 − mean) / std, each step rounded to float32. It has no gradient.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape, size, box, filter, mean or std, for pictures of
    different channels or devices; NotImplementedError for a
    device other than the CPU and NVIDIA's GPUs.
    See hw4fast.kernels.resize for the formula and the float64 reference.
    """
    one = isinstance(pictures, Tensor)
    given: list[Tensor] = [pictures] if isinstance(pictures, Tensor) else list(pictures)
    if not given:
        raise ValueError("there must be a picture")
    for tensor in given:
        if not isinstance(tensor, Tensor):
            raise no_tensors({"pictures": tensor})
        if tensor.dtype is not torch.uint8:
            raise TypeError(f"pictures must be uint8, not {tensor.dtype}")
        if tensor.dim() != (4 if one else 3):
            shape = list(tensor.shape)
            raise ValueError(f"pictures must be [n, h, w, 1 or 3], or a list of [h, w, 1 or 3], not {shape}")
    check_tensors("resize", *given, cuda=True)
    batches = given if one else [picture[None] for picture in given]
    channels = batches[0].shape[3]
    if any(batch.shape[3] != channels for batch in batches):
        raise ValueError("the pictures of a batch must have as many channels")
    means, stds = card.normalisation(mean, std, channels)
    if means and dtype not in DTYPES:
        raise TypeError(f"dtype must be float32, float16 or bfloat16, not {dtype}")
    boxes = [card.checked(batch.shape[1:], size, box, interpolation)[2] for batch in batches]
    wanted = [int(side) for side in size], list(boxes[0]), interpolation, means, stds
    if len(batches) == 1:
        found: Tensor = _resize(batches[0], *wanted, dtype)
        return found
    if not batches[0].is_cuda:
        return torch.cat([_resize(batch, *wanted, dtype) for batch in batches])
    output = _output(batches[0].expand(len(batches), -1, -1, -1), boxes[0], means, dtype)
    for place, batch in enumerate(batches):
        _resize_into(output[place : place + 1], batch, *wanted)
    return output
