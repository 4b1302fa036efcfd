"""Batched forms of transforms.geometry: the fixed point of csrc/sample.inl in torch's integers, and nn.resize."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hw4fast.batched.forms import FORMS, sides
from hw4fast.nn import resize
from hw4fast.transforms import geometry

BITS, DROPPED = 14, 7  # of a weight; of the step across, which 8 + 7 stay of
END = 2 * BITS - DROPPED  # bits of the last sum's fraction


@FORMS.register("rotate")
def rotate(pictures: Tensor, *, degrees: float, fill: str) -> Tensor:
    return warped(pictures, [geometry.rotation(sides(pictures), degrees)], fill)


@FORMS.register("translate")
def translate(pictures: Tensor, *, right: float, down: float, fill: str) -> Tensor:
    height, width = sides(pictures)
    return warped(pictures, [((1, 0, -round(right * width)), (0, 1, -round(down * height)), (0, 0, 1))], fill)


@FORMS.register("shear")
def shear(pictures: Tensor, *, degrees: float, fill: str) -> Tensor:
    return warped(pictures, [geometry.shearing(sides(pictures), degrees)], fill)


@FORMS.register("perspective")
def perspective(pictures: Tensor, *, rngs: Sequence[np.random.Generator], distortion: float, fill: str) -> Tensor:
    return warped(pictures, [geometry.from_a_side(sides(pictures), rng, distortion) for rng in rngs], fill)


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


def warped(pictures: Tensor, matrices: Sequence[geometry.Matrix], fill: str) -> Tensor:
    """kernels.sample.warp of each picture, [n, h, w, c], through its homography, or all through one."""
    border, value = geometry.FILLS[fill]
    h, w = sides(pictures)
    m = torch.tensor(np.array(matrices, np.float64), device=pictures.device).view(-1, 9, 1, 1).unbind(1)
    down = torch.arange(h, dtype=torch.float64, device=pictures.device).view(1, h, 1)
    right = torch.arange(w, dtype=torch.float64, device=pictures.device).view(1, 1, w)
    across, along, depth = (m[k] * right + (m[k + 1] * down + m[k + 2]) for k in (0, 3, 6))
    # an affine one's depth is 1, and to divide by it changes nothing
    rows, columns = (along / depth).float(), (across / depth).float()
    return sampled(pictures, rows, columns, value if border == "constant" else None)


def sampled(pictures: Tensor, rows: Tensor, columns: Tensor, fill: int | None) -> Tensor:
    """kernels.sample.sample, to the nearest, at float32 [n or 1, H, W] → [n, H, W, c]. fill: what lies beyond the
    border, its nearest pixel if None."""
    n, h, w, c = pictures.shape
    (row, lower), (column, right) = _places(rows, h), _places(columns, w)
    place = row * (w + 2) + column  # in the picture with a pixel more on each side
    framed = _framed(pictures, fill).reshape(n, -1, c)
    shape = (n, *place.shape[1:], c)

    def at(beside: int) -> Tensor:
        index = (place + beside).flatten(1)
        found = framed[:, index[0]] if len(index) == 1 else framed.gather(1, index[..., None].expand(-1, -1, c))
        return found.view(shape).int()

    def across(row: int) -> Tensor:
        sum_ = at(row * (w + 2)) * (2**BITS - right) + at(row * (w + 2) + 1) * right
        return (sum_ + (1 << (DROPPED - 1))) >> DROPPED

    right, lower = right[..., None], lower[..., None]
    total = across(0) * (2**BITS - lower) + across(1) * lower
    return ((total + (2 ** (END - 1) - 1) + ((total >> END) & 1)) >> END).to(torch.uint8)


def _places(places: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Of an axis: int64 0 … length into the framed picture, and the weight of the next pixel, int32."""
    # NaN is as far away as −∞
    framed = (places + 1).nan_to_num(0.0, float("inf"), float("-inf")).clamp(0, length + 1)
    index = framed.int().clamp(max=length)
    rest = framed - index.float()
    return index.long(), (rest * 2**BITS + 0.5).int()


def _framed(pictures: Tensor, fill: int | None) -> Tensor:
    n, h, w, c = pictures.shape
    if fill is None:
        rows, columns = (torch.arange(-1, side + 1, device=pictures.device).clamp(0, side - 1) for side in (h, w))
        return pictures[:, rows][:, :, columns]
    framed = pictures.new_full((n, h + 2, w + 2, c), fill)
    framed[:, 1:-1, 1:-1] = pictures
    return framed
