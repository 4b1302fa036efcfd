"""Batched forms of the Gaussian blurs: the fixed point of kernels.gaussian_blur, as products of matrices.

A line's blur, its borders included, is a matrix. Its entries and the sums are whole numbers below 2^53, which float64
holds exactly: any order of the additions gives the same, on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hw4fast.batched.forms import FORMS, on
from hw4fast.kernels import gaussian_blur as card
from hw4fast.transforms.blur import size_for


@FORMS.register("blur")
def blur(pictures: Tensor, *, size: int, sigma: float | None) -> Tensor:
    return blurred(pictures, size, [card.default_sigma(size) if sigma is None else sigma])


@FORMS.register("trick")
def trick(pictures: Tensor, *, rngs: Sequence[np.random.Generator], high: float) -> Tensor:
    return blurred(pictures, 51, [rng.uniform(0.1, high) for rng in rngs])


@FORMS.register("gaussian_blur")
def gaussian_blur(pictures: Tensor, *, sigma: float) -> Tensor:
    width = sigma * (min(pictures.shape[1:3]) / 224)
    return blurred(pictures, size_for(width), [width], border="edge", down=True)


def blurred(pictures: Tensor, size: int, sigmas: Sequence[float], border: str = "mirror", down: bool = False) -> Tensor:
    """kernels.gaussian_blur of each of [n, h, w, c] with its sigma, or all with one. down: how the end is rounded."""
    n, h, w, c = pictures.shape
    weights, units = zip(*(card.fixed_weights(card.gaussian_weights(size, sigma)) for sigma in sigmas), strict=True)
    taps = on(pictures, np.array(weights, np.float64))
    rows, columns = (_matrix(taps, size, side, border) for side in (h, w))
    kept = np.array([card.kept_bits(unit) for unit in units])
    first, last = (on(pictures, 2.0**bits).view(-1, 1, 1) for bits in (kept - units, -kept - units))
    middle = (rows @ pictures.reshape(n, h, w * c).double() * first).round()
    lines = middle.view(n, h, w, c).transpose(2, 3).reshape(n, h * c, w) @ columns.transpose(1, 2)
    exact = lines * last
    result = (exact.floor() if down else exact.round()).to(torch.uint8)
    return result.view(n, h, c, w).transpose(2, 3).contiguous()


def _matrix(taps: Tensor, size: int, length: int, border: str) -> Tensor:
    """float64 [n, size] → [n, length, length]: what makes blurred lines of lines."""
    n = len(taps)
    index = _seen(taps.device, size, length, border).expand(n, -1, -1)
    matrix = torch.zeros(n, length, length, dtype=torch.float64, device=taps.device)
    return matrix.scatter_add_(2, index, taps[:, None].expand(-1, length, -1))


@lru_cache(32)
def _seen(device: torch.device, size: int, length: int, border: str) -> Tensor:
    """int64 [length, size]: which of a line's pixels each weight of an output meets."""
    line = card.reflected(size // 2, length, border)
    return torch.from_numpy(np.lib.stride_tricks.sliding_window_view(line, size).copy()).to(device)
