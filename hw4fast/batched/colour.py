"""Batched forms of transforms.colour: its formulas, on [n, h, w] at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hw4fast.batched.forms import FORMS, look_up, nearest, on, per_picture
from hw4fast.transforms import colour

LUMA = tuple(float(np.float32(share)) for share in (0.299, 0.587, 0.114))


def _table(pictures: Tensor, values: np.ndarray) -> Tensor:
    """values: uint8 [1, 256, 1], what a transform makes of every grey level."""
    return look_up(pictures, on(pictures, values.ravel()))


GREYS = colour.GREYS.astype(np.uint8).reshape(1, 256, 1)


@FORMS.register("exposure")
def exposure(pictures: Tensor, *, factor: float) -> Tensor:
    return _table(pictures, colour.exposure(GREYS, factor=factor))


@FORMS.register("gamma")
def gamma(pictures: Tensor, *, exponent: float) -> Tensor:
    return _table(pictures, colour.gamma(GREYS, exponent=exponent))


@FORMS.register("posterise")
def posterise(pictures: Tensor, *, bits: int) -> Tensor:
    return pictures & (256 - 2 ** (8 - bits))


@FORMS.register("solarise")
def solarise(pictures: Tensor, *, threshold: float) -> Tensor:
    return _table(pictures, colour.solarise(GREYS, threshold=threshold))


@FORMS.register("hue")
def hue(pictures: Tensor, *, degrees: float) -> Tensor:
    if pictures.shape[3] == 1:
        return pictures.clone()
    values = pictures.float()
    red, green, blue = values.unbind(3)
    most, least = values.amax(3), values.amin(3)
    chroma = most - least
    here = torch.copysign(chroma - red - least + green + blue, green - blue)
    half, base = chroma * 3, most - chroma * 2
    planes = []
    for channel in range(3):
        turn = float(np.float32((degrees / 60 - 2 * channel + 3) % 6 - 3))
        value = (((chroma * turn + here).abs() - half).abs() + base).maximum(least).minimum(most)
        planes.append(value.round().to(torch.uint8))
    return torch.stack(planes, 3)


@FORMS.register("grey")
def grey(pictures: Tensor, *, amount: float) -> Tensor:
    return nearest(_saturation(pictures.float(), per_picture(pictures, [1 - amount])))


@FORMS.register("channel_swap")
def channel_swap(pictures: Tensor, *, order: str) -> Tensor:
    if pictures.shape[3] == 1:
        return pictures.clone()
    return pictures[..., ["RGB".index(channel) for channel in order]]


@FORMS.register("jitter")
def jitter(pictures: Tensor, *, rngs: Sequence[np.random.Generator], strength: float) -> Tensor:
    drawn = zip(*(rng.uniform(1 - strength, 1 + strength, 3) for rng in rngs), strict=True)
    brighter, steeper, stronger = (per_picture(pictures, [float(x) for x in factors]) for factors in drawn)
    values = _away_from(torch.zeros_like(brighter), pictures.float(), brighter)
    levels = _luma(values).round().double()
    count = torch.tensor(float(levels[0].numel()), dtype=torch.float64, device=levels.device)
    mean = (levels.sum((1, 2, 3), keepdim=True) / count + 0.5).floor().float()
    return nearest(_saturation(_away_from(mean, values, steeper), stronger))


def _luma(values: Tensor) -> Tensor:
    """float32 [n, h, w, c] → [n, h, w, 1]."""
    if values.shape[3] == 1:
        return values
    red, green, blue = (values[..., channel : channel + 1] for channel in range(3))
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _saturation(values: Tensor, factors: Tensor) -> Tensor:
    return _away_from(_luma(values), values, factors)


def _away_from(pivot: Tensor, values: Tensor, factors: Tensor) -> Tensor:
    return ((values - pivot) * factors + pivot).clamp(0, 255)
