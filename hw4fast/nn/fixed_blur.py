"""fixed_blur and float_blur: Gaussian blurs of batches on the CPU or a GPU, with the bits of kernels.gaussian_blur.

`gaussian_blur` is for training: it has a gradient, and on a GPU sums in float32, across first. These are for measuring:
every device gives the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hw4fast.kernels import gaussian_blur as card
from hw4fast.nn import cuda
from hw4fast.nn.operators import check_pictures, check_tensors, no_tensors, refuse_gradient


def fixed_blur(
    pictures: Tensor, size: int, sigmas: Sequence[float], border: str = "mirror", rounding: str = "nearest"
) -> Tensor:
    """Pictures, each blurred with its own sigma or all with one.

    pictures: uint8 [n, h, w, c]. size: of the kernel in pixels, odd, 1 … 999. sigmas: pixels, n or one. border,
    rounding: see kernels.gaussian_blur. → a new tensor of the same shape; picture i is kernels.gaussian_blur's.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape or value, NotImplementedError for a device other
    than the CPU and NVIDIA's GPUs.
    """
    check_pictures("fixed_blur", pictures)
    if pictures.dim() != 4:
        raise ValueError(f"pictures must be [n, h, w, c], not {list(pictures.shape)}")
    n = len(pictures)
    if len(sigmas) not in (1, n):
        raise ValueError(f"there must be {n} sigmas or one, not {len(sigmas)}")
    if border not in card.BORDERS or rounding not in card.ROUNDINGS:
        raise ValueError(f"border must be one of {list(card.BORDERS)} and rounding one of {list(card.ROUNDINGS)}")
    for sigma in sigmas:
        card.pairs(size, sigma)  # its errors
    if pictures.is_cuda:
        return _fixed_blur_cuda(pictures, size, sigmas, border, rounding)
    output = torch.empty(pictures.shape, dtype=torch.uint8)
    every = sigmas if len(sigmas) == n else [sigmas[0]] * n
    for picture, sigma, out in zip(pictures.numpy(), every, output.numpy(), strict=True):
        out[...] = card.gaussian_blur(picture, size, sigma, border=border, rounding=rounding)
    return output


def float_blur(fields: Tensor, sizes: card.Sizes, sigmas: card.Sigmas, border: str = "mirror") -> Tensor:
    """Fields of numbers, float32 [n, h, w, c], all blurred alike → a new tensor of the same shape.

    sizes, sigmas: of the kernel in pixels, one for both directions or (across, down); border: see
    kernels.gaussian_blur, whose numbers these are. A GPU gives the bits that the CPU gives where it has FMA, AVX2 or
    AVX-512; without, some last bits differ.
    Raises as `fixed_blur` does, NotImplementedError also where a gradient would be lost.
    """
    if not isinstance(fields, Tensor):
        raise no_tensors({"fields": fields})
    check_tensors("float_blur", fields, cuda=True)
    if fields.dtype is not torch.float32:
        raise TypeError(f"fields must be float32, not {fields.dtype}")
    if fields.dim() != 4:
        raise ValueError(f"fields must be [n, h, w, c], not {list(fields.shape)}")
    if border not in card.BORDERS:
        raise ValueError(f"border must be one of {list(card.BORDERS)}, not {border!r}")
    refuse_gradient("float_blur", fields)
    pairs = card.pairs(sizes, sigmas)
    fields = fields.detach().resolve_neg()
    if fields.is_cuda:
        return _float_blur_cuda(fields, *pairs, border)
    output = torch.empty(fields.shape, dtype=torch.float32)
    for field, out in zip(fields.numpy(), output.numpy(), strict=True):
        out[...] = card.gaussian_blur(field, *pairs, threads=1, border=border)
    return output


def _fixed_blur_cuda(pictures: Tensor, size: int, sigmas: Sequence[float], border: str, rounding: str) -> Tensor:
    pictures = pictures.contiguous()
    output = torch.empty_like(pictures)
    weights, units = zip(*(card.fixed_gaussian(size, sigma) for sigma in sigmas), strict=True)
    kept = [card.kept_bits(unit) for unit in units]
    shifts = [[u - k for u, k in zip(units, kept, strict=True)], [u + k for u, k in zip(units, kept, strict=True)]]
    numbers = np.concatenate([np.ravel(weights), np.ravel(shifts)]).astype(np.int32)  # one copy
    there = cuda.copied(numbers, pictures)
    middle = cuda.scratch(pictures, 2 * pictures.numel())
    cuda.launch(
        cuda.module().fixed_blur,
        pictures,
        pictures.data_ptr(),
        output.data_ptr(),
        middle.data_ptr(),
        tuple(pictures.shape),
        there.data_ptr(),
        size,
        there.data_ptr() + 4 * size * len(sigmas),
        len(sigmas) > 1,
        card.BORDERS.index(border),
        rounding == "nearest",
    )
    return output


def _float_blur_cuda(fields: Tensor, sizes: tuple[int, int], sigmas: tuple[float, float], border: str) -> Tensor:
    fields = fields.contiguous()
    output = torch.empty_like(fields)
    across, down = (card.gaussian_weights(*of) for of in zip(sizes, sigmas, strict=True))
    there = cuda.copied(np.concatenate([down, across]).astype(np.float32), fields)  # one copy
    middle = cuda.scratch(fields, 4 * fields.numel())
    cuda.launch(
        cuda.module().float_blur,
        fields,
        fields.data_ptr(),
        output.data_ptr(),
        middle.data_ptr(),
        tuple(fields.shape),
        there.data_ptr(),
        there.data_ptr() + 4 * len(down),
        sizes[::-1],
        card.BORDERS.index(border),
    )
    return output
