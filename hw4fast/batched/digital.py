"""Batched forms of transforms.digital."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hw4fast.batched.forms import FORMS, look_up, on, rounded_down, sides, single
from hw4fast.nn import draws, float_blur, resize, sample
from hw4fast.nn import jpeg as written_and_read
from hw4fast.transforms import digital
from hw4fast.transforms.randomness import key_of

SHARE = float(np.float32(1) / np.float32(255))  # of the kernel (csrc/pixels.inl), as its `room`
ROOM = 2.0**-10


@FORMS.register("brightness")
def brightness(pictures: Tensor, *, amount: float) -> Tensor:
    if pictures.shape[3] == 1:
        table = digital.brightness(np.arange(256, dtype=np.uint8).reshape(1, 256, 1), amount=amount)
        return look_up(pictures, on(pictures, table.ravel()))
    values = pictures.float()
    most = values.amax(3, keepdim=True)
    wanted = (most * SHARE + float(np.float32(amount))).clamp(0, 1) * 255
    share = wanted / most.clamp(min=1)
    return rounded_down(torch.where(most > 0, values * share, wanted) + ROOM)


@FORMS.register("saturate")
def saturate(pictures: Tensor, *, factor: float, offset: float) -> Tensor:
    if pictures.shape[3] == 1:
        return pictures.clone()
    values = pictures.float()
    most = values.amax(3, keepdim=True)
    spread = most - values.amin(3, keepdim=True)
    saturation = spread / most.clamp(min=1)
    wanted = (saturation * float(np.float32(factor)) + float(np.float32(offset))).clamp(0, 1)
    share = most * wanted / spread.clamp(min=1)
    coloured = most - (most - values) * share
    red = torch.cat([most, *[most - most * wanted] * 2], 3)  # what a grey pixel becomes
    return rounded_down(torch.where(spread == 0, red, coloured) + ROOM)


@FORMS.register("contrast")
def contrast(pictures: Tensor, *, factor: float) -> Tensor:
    n, height, width, channels = pictures.shape
    sums = pictures.sum((1, 2), dtype=torch.int64).double()
    means = (sums / torch.tensor(float(height * width), dtype=torch.float64, device=sums.device)).view(n, channels, 1)
    greys = torch.arange(256, dtype=torch.float64, device=pictures.device)
    return look_up(pictures, rounded_down((greys - means) * factor + means + 1e-6))


@FORMS.register("elastic")
def elastic(pictures: Tensor, *, rngs: Sequence[np.random.Generator], alpha: float, smooth: float) -> Tensor:
    size = height, width = sides(pictures)
    moves = draws("uniform", (height, width, 2), [key_of(rng) for rng in rngs], pictures) - 0.5
    moves = float_blur(moves, *digital.smoothing(size, smooth), border="reflect")
    moves = moves * single(digital.farthest(size, alpha))
    rows = torch.arange(height, dtype=torch.float32, device=moves.device)[:, None] + moves[..., 1]
    columns = torch.arange(width, dtype=torch.float32, device=moves.device) + moves[..., 0]
    return sample(pictures, rows, columns, border="reflect", rounding="down")


@FORMS.register("pixelate")
def pixelate(pictures: Tensor, *, factor: float) -> Tensor:
    height, width = sides(pictures)
    small = max(1, int(height * factor)), max(1, int(width * factor))
    reduced = resize(pictures, small, interpolation="box")
    rows, columns = (
        on(pictures, digital.nearest_places(short, long)[0]) for short, long in zip(small, (height, width), strict=True)
    )
    return reduced[:, rows][:, :, columns]


@FORMS.register("jpeg")
def jpeg(pictures: Tensor, *, quality: int) -> Tensor:
    return written_and_read(pictures, quality)
