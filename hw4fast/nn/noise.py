"""noise, draws and shuffle for batches, on the CPU or a GPU: the bytes of hw4fast.kernels.noise, picture by picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hw4fast.kernels import noise as card
from hw4fast.nn import cuda
from hw4fast.nn.operators import check_pictures, check_tensors

ON_PICTURES = {  # kind → the CPU's function of (picture, strength, key)
    "gaussian": card.gaussian_noise,
    "speckle": card.speckle_noise,
    "impulse": card.impulse_noise,
    "shot": card.shot_noise,
}
DRAWS = {"normal": card.normal, "uniform": card.uniform}  # kind → the CPU's function of (shape, key)


def noise(pictures: Tensor, kind: str, strength: float, keys: Sequence[int]) -> Tensor:
    """Pictures with noise on them, each with its own.

    pictures: uint8 [n, ...]. kind: "gaussian" or "speckle" (strength: standard deviation, white is 1), "impulse" (the
    share of values) or "shot" (the photons of a white value). keys: of 64 bits, one per picture.
    → a new tensor of the same shape; picture i is that which hw4fast.kernels.noise makes with keys[i].
    Raises TypeError for a wrong dtype, ValueError for another kind, strength or number of keys, NotImplementedError for
    a device other than the CPU and NVIDIA's GPUs.
    """
    _check("noise", pictures, keys)
    if kind not in ON_PICTURES:
        raise ValueError(f"kind must be one of {list(ON_PICTURES)}, not {kind!r}")
    ON_PICTURES[kind](np.zeros(0, np.uint8), strength, 0)  # its ValueErrors
    if pictures.is_cuda:
        return _noise_cuda(pictures, kind, strength, keys)
    output = torch.empty(pictures.shape, dtype=torch.uint8)
    for picture, key, out in zip(pictures.numpy(), keys, output.numpy(), strict=True):
        out[...] = ON_PICTURES[kind](picture, strength, key)
    return output


def draws(kind: str, shape: tuple[int, ...], keys: Sequence[int], where: Tensor) -> Tensor:
    """Random numbers from counters. kind: "normal", N(0, 1), or "uniform", even in [0, 1). keys: of 64 bits.

    → float32 [len(keys), *shape] on the device of `where`; part i is what hw4fast.kernels.noise draws with keys[i].
    Raises ValueError for another kind, NotImplementedError for a device other than the CPU and NVIDIA's GPUs.
    """
    check_tensors("draws", where, cuda=True)
    if kind not in DRAWS:
        raise ValueError(f"kind must be one of {list(DRAWS)}, not {kind!r}")
    if where.is_cuda:
        return _draws_cuda(kind, shape, keys, where)
    output = torch.empty((len(keys), *shape), dtype=torch.float32)
    for key, out in zip(keys, output, strict=True):
        out.copy_(torch.from_numpy(DRAWS[kind](shape, key)))
    return output


def shuffle(pictures: Tensor, reach: int, turns: int, keys: Sequence[int]) -> Tensor:
    """Pictures, uint8 [n, h, w, c], whose pixels move by up to `reach`, `turns` times over, each as its key says.

    → a new tensor of the same shape; picture i is that which hw4fast.kernels.noise.shuffle makes with keys[i].

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, reach, turns or number of keys,
    NotImplementedError for a device other than the CPU and NVIDIA's GPUs.
    """
    _check("shuffle", pictures, keys)
    if pictures.dim() != 4:
        raise ValueError(f"pictures must be [n, h, w, c], not {list(pictures.shape)}")
    card.shuffle(np.zeros((0, 0, 1), np.uint8), reach, turns, 0)  # its ValueErrors
    if pictures.is_cuda:
        return _shuffle_cuda(pictures, reach, turns, keys)
    output = torch.empty(pictures.shape, dtype=torch.uint8)
    for picture, key, out in zip(pictures.numpy(), keys, output.numpy(), strict=True):
        out[...] = card.shuffle(picture, reach, turns, key)
    return output


def _check(name: str, pictures: Tensor, keys: Sequence[int]) -> None:
    check_pictures(name, pictures)
    if pictures.dim() < 1 or len(pictures) != len(keys):
        raise ValueError(f"there must be a key per picture, not {len(keys)} for {list(pictures.shape)}")


def _keys_on(keys: Sequence[int], where: Tensor) -> Tensor:
    return cuda.copied(np.array(keys, np.uint64).view(np.int64), where)


def _draws_cuda(kind: str, shape: tuple[int, ...], keys: Sequence[int], where: Tensor) -> Tensor:
    output = torch.empty((len(keys), *shape), dtype=torch.float32, device=where.device)
    there, size = _keys_on(keys, where), output.numel() // max(len(keys), 1)
    given = card.KINDS.index(kind), 0, output.data_ptr(), there.data_ptr(), len(keys), size, 0.0, 0, 0
    cuda.launch(cuda.module().noise, where, *given)
    return output


def _shuffle_cuda(pictures: Tensor, reach: int, turns: int, keys: Sequence[int]) -> Tensor:
    output = pictures.clone(memory_format=torch.contiguous_format)
    there = _keys_on(keys, pictures)
    given = output.data_ptr(), tuple(output.shape), reach, turns, there.data_ptr()
    cuda.launch(cuda.module().shuffle, pictures, *given)
    return output


def _noise_cuda(pictures: Tensor, kind: str, strength: float, keys: Sequence[int]) -> Tensor:
    pictures = pictures.contiguous()
    output = torch.empty_like(pictures)
    n = len(pictures)
    there = _keys_on(keys, pictures)
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
