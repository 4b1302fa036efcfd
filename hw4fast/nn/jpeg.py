"""jpeg of batches of pictures, on the CPU or a GPU: kernels.jpeg's very bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from hw4fast.kernels import jpeg as card
from hw4fast.nn import cuda
from hw4fast.nn.operators import check_pictures

UNIT = 16  # pixels of a side that share a block of colour
UNIT_BYTES = 6 * 64  # four blocks of brightness, two of colours


def jpeg(pictures: Tensor, quality: int) -> Tensor:
    """What is left of pictures that were written as JPEG of a quality and read again.

    pictures: uint8 [n, h, w, 1 or 3]. quality: 1 … 100. → a new tensor of the same shape; picture i is
    kernels.jpeg.jpeg's. On a GPU it may be captured in a CUDA graph.
    Raises TypeError for a wrong dtype or a quality that is no whole number, ValueError for a wrong shape or value,
    NotImplementedError for a device other than the CPU and NVIDIA's GPUs.
    """
    check_pictures("jpeg", pictures)
    if pictures.dim() != 4 or pictures.shape[3] not in (1, 3) or max(pictures.shape[1:]) > card.LONGEST:
        raise ValueError(
            f"pictures must be [n, h, w, 1 or 3], no side above {card.LONGEST}, not {list(pictures.shape)}"
        )
    quality = card.checked(quality)
    if pictures.is_cuda:
        return _jpeg_cuda(pictures, quality)
    output = torch.empty(pictures.shape, dtype=torch.uint8)
    for picture, out in zip(pictures.numpy(), output.numpy(), strict=True):
        out[...] = card.jpeg(picture, quality)
    return output


def _jpeg_cuda(pictures: Tensor, quality: int) -> Tensor:
    pictures = pictures.contiguous()
    output = torch.empty_like(pictures)
    n, h, w, c = pictures.shape
    units = n * -(-h // UNIT) * -(-w // UNIT)
    planes = cuda.scratch(pictures, UNIT_BYTES * units if c == 3 else 0)
    cuda.launch(
        cuda.module().jpeg,
        pictures,
        pictures.data_ptr(),
        output.data_ptr(),
        planes.data_ptr(),
        tuple(pictures.shape),
        quality,
    )
    return output
