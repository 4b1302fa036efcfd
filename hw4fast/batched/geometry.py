"""Batched forms of transforms.geometry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hw4fast.batched.forms import FORMS, sides
from hw4fast.nn import resize, warp
from hw4fast.transforms import geometry


@FORMS.register("rotate")
def rotate(pictures: Tensor, *, degrees: float, fill: str) -> Tensor:
    return _warped(pictures, [geometry.rotation(sides(pictures), degrees)], fill)


@FORMS.register("translate")
def translate(pictures: Tensor, *, right: float, down: float, fill: str) -> Tensor:
    height, width = sides(pictures)
    return _warped(pictures, [((1, 0, -round(right * width)), (0, 1, -round(down * height)), (0, 0, 1))], fill)


@FORMS.register("shear")
def shear(pictures: Tensor, *, degrees: float, fill: str) -> Tensor:
    return _warped(pictures, [geometry.shearing(sides(pictures), degrees)], fill)


@FORMS.register("perspective")
def perspective(pictures: Tensor, *, rngs: Sequence[np.random.Generator], distortion: float, fill: str) -> Tensor:
    return _warped(pictures, [geometry.from_a_side(sides(pictures), rng, distortion) for rng in rngs], fill)


@FORMS.register("flip")
def flip(pictures: Tensor, *, axis: str) -> Tensor:
    return pictures.flip([1 + side for side in geometry.AXES[axis]])


@FORMS.register("crop")
def crop(pictures: Tensor, *, share: float) -> Tensor:
    top, left, inner_height, inner_width = geometry.middle(sides(pictures), share)
    return resize(pictures[:, top : top + inner_height, left : left + inner_width], sides(pictures))


@FORMS.register("scale")
def scale(pictures: Tensor, *, factor: float, fill: str) -> Tensor:
    size, box, (above, beside) = geometry.zoomed(sides(pictures), factor)
    resized = resize(pictures, size, box)
    border, value = geometry.FILLS[fill]
    if border == "edge":
        rows, columns = (
            (torch.arange(side, device=pictures.device) - margin).clamp(0, inner - 1)
            for side, margin, inner in zip(sides(pictures), (above, beside), box[2:], strict=True)
        )
        return resized[:, rows][:, :, columns]
    result = torch.full_like(pictures, value)
    result[:, above : above + box[2], beside : beside + box[3]] = resized
    return result


def _warped(pictures: Tensor, matrices: Sequence[geometry.Matrix], fill: str) -> Tensor:
    border, value = geometry.FILLS[fill]
    return warp(pictures, np.array(matrices, np.float64), value if border == "constant" else None)
