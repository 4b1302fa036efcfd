"""Batched forms of transforms.resampling: pictures of any sizes, a size at a time, to what a net reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hw4fast.batched.forms import FORMS, nearest, on, sides
from hw4fast.data.preprocessing import Preprocessing
from hw4fast.nn import jpeg, resize, sample
from hw4fast.transforms.digital import nearest_places
from hw4fast.transforms.resampling import places_between


@FORMS.register("interpolation")
def interpolation(pictures: Sequence[Tensor], *, preprocessing: Preprocessing, kind: str) -> Tensor:
    if kind != "no-antialias":
        return fitted(pictures, replace(preprocessing, interpolation=kind))

    def between(batch: Tensor) -> Tensor:
        return sample(batch, *places_between(preprocessing, sides(batch)))

    return _by_size([_in_mode(picture, preprocessing.channels) for picture in pictures], between)


@FORMS.register("framing")
def framing(pictures: Sequence[Tensor], *, preprocessing: Preprocessing, kind: str) -> Tensor:
    rows, columns = preprocessing.crop
    if kind == "tight":
        return fitted(pictures, replace(preprocessing, resize="shorter-side", resize_size=max(rows, columns)))
    stretched = replace(preprocessing, resize="stretch", resize_size=None)
    if kind == "crop-first":
        pictures = [_middle(picture, rows, columns) for picture in pictures]
    return fitted(pictures, stretched)


@FORMS.register("normalisation")
def normalisation(pictures: Sequence[Tensor], *, preprocessing: Preprocessing, kind: str) -> Tensor:
    values = fitted(pictures, preprocessing).double()
    turned = slice(None, None, -1) if preprocessing.mode == "BGR" else slice(None)
    given = (preprocessing.mean, preprocessing.std)
    mean, std = (on(values, np.asarray(numbers, np.float64)[turned]) for numbers in given)
    values = values / torch.tensor(255.0, dtype=torch.float64, device=values.device)
    wrong = values if kind == "none" else values * 2 - 1
    return nearest((mean + std * wrong) * preprocessing.divisor)


@FORMS.register("reencode")
def reencode(pictures: Sequence[Tensor], *, preprocessing: Preprocessing, quality: int) -> Tensor:
    return _by_size(pictures, lambda batch: _fitted(jpeg(batch, quality), preprocessing))


@FORMS.register("thumbnail")
def thumbnail(pictures: Sequence[Tensor], *, preprocessing: Preprocessing, side: int) -> Tensor:
    def reduced(batch: Tensor) -> Tensor:
        short = min(sides(batch))
        if short > side:
            height, width = (max(1, round(n * side / short)) for n in sides(batch))
            batch = resize(batch, (height, width))
        return _fitted(batch, preprocessing)

    return _by_size(pictures, reduced)


def fitted(pictures: Sequence[Tensor], preprocessing: Preprocessing) -> Tensor:
    """Preprocessing.fit of each, uint8 [h, w, 1 or 3] of any sizes → [n, crop height, crop width, channels]."""
    return _by_size(pictures, lambda batch: _fitted(batch, preprocessing))


def _fitted(batch: Tensor, preprocessing: Preprocessing) -> Tensor:
    batch = _in_mode(batch, preprocessing.channels)
    size, box = preprocessing.places(*sides(batch))
    if preprocessing.interpolation != "nearest":
        return resize(batch, size, box, preprocessing.interpolation)
    rows, columns = (
        on(batch, nearest_places(whole, resized)[0][begin : begin + n])
        for whole, resized, begin, n in zip(sides(batch), size, box[:2], box[2:], strict=True)
    )
    return batch[:, rows][:, :, columns]


def _by_size(pictures: Sequence[Tensor], change: Callable[[Tensor], Tensor]) -> Tensor:
    """change(pictures of one size and as many channels, [n, h, w, c]), put together in the order of the pictures."""
    places: dict[torch.Size, list[int]] = {}
    for place, picture in enumerate(pictures):
        places.setdefault(picture.shape, []).append(place)
    made = [change(torch.stack([pictures[place] for place in some])) for some in places.values()]
    order = sorted(range(len(pictures)), key=[place for some in places.values() for place in some].__getitem__)
    return torch.cat(made)[order] if len(made) > 1 else made[0]


def _in_mode(pictures: Tensor, channels: int) -> Tensor:
    """uint8 [..., 1 or 3] → [..., channels], grey as Pillow makes it."""
    if pictures.shape[-1] == channels:
        return pictures
    if channels == 3:
        return pictures.expand(*pictures.shape[:-1], 3).contiguous()
    red, green, blue = pictures.int().unbind(-1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[..., None]


def _middle(picture: Tensor, rows: int, columns: int) -> Tensor:
    height, width = min(rows, picture.shape[0]), min(columns, picture.shape[1])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]
