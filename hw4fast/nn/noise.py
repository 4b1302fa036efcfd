"""noise for batches of pictures, on the CPU or a GPU: the bytes of hw4fast.kernels.noise, picture by picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hw4fast.kernels import noise as card
from hw4fast.nn import cuda
from hw4fast.nn.operators import check_tensors, no_tensors

ON_PICTURES = {  # kind → the CPU's function of (picture, strength, key)
    "gaussian": card.gaussian_noise,
    "speckle": card.speckle_noise,
    "impulse": card.impulse_noise,
    "shot": card.shot_noise,
}


def noise(pictures: Tensor, kind: str, strength: float, keys: Sequence[int]) -> Tensor:
    """Pictures with noise on them, each with its own.

    pictures: uint8 [n, ...]. kind: "gaussian" or "speckle" (strength: standard deviation, white is 1), "impulse" (the
    share of values) or "shot" (the photons of a white value). keys: of 64 bits, one per picture.
    → a new tensor of the same shape; picture i is that which hw4fast.kernels.noise makes with keys[i].
    Raises TypeError for a wrong dtype, ValueError for another kind, strength or number of keys, NotImplementedError for
    a device other than the CPU and NVIDIA's GPUs.
    """
    if not isinstance(pictures, Tensor):
        raise no_tensors({"pictures": pictures})
    check_tensors("noise", pictures, cuda=True)
    if pictures.dtype is not torch.uint8:
        raise TypeError(f"pictures must be uint8, not {pictures.dtype}")
    if kind not in ON_PICTURES:
        raise ValueError(f"kind must be one of {list(ON_PICTURES)}, not {kind!r}")
    if pictures.dim() < 1 or len(pictures) != len(keys):
        raise ValueError(f"there must be a key per picture, not {len(keys)} for {list(pictures.shape)}")
    ON_PICTURES[kind](np.zeros(0, np.uint8), strength, 0)  # its ValueErrors
    if pictures.is_cuda:
        return _noise_cuda(pictures, kind, strength, keys)
    output = torch.empty(pictures.shape, dtype=torch.uint8)
    for picture, key, out in zip(pictures.numpy(), keys, output.numpy(), strict=True):
        out[...] = ON_PICTURES[kind](picture, strength, key)
    return output


def _noise_cuda(pictures: Tensor, kind: str, strength: float, keys: Sequence[int]) -> Tensor:
    pictures = pictures.contiguous()
    output = torch.empty_like(pictures)
    n = len(pictures)
    there = cuda.copied(np.array(keys, np.uint64).view(np.int64), pictures)
    table, bits = _table_on(pictures.device, strength) if kind == "shot" else (None, 0)
    cuda.launch(
        cuda.module().noise,
        pictures,
        card.KINDS.index(kind),
        pictures.data_ptr(),
        output.data_ptr(),
        there.data_ptr(),
        n,
        pictures.numel() // max(n, 1),
        {"gaussian": 255 * strength, "shot": 0.0}.get(kind, strength),
        cuda.address(table),
        bits,
    )
    return output


@lru_cache(16)
def _table_on(device: torch.device, photons: float) -> tuple[Tensor, int]:
    """kernels.noise.shot_table there."""
    table, bits = card.shot_table(float(photons))
    return torch.from_numpy(table).to(device, copy=True), bits
