"""Batched forms of transforms.weather."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from hw4fast.batched.drops import above, drops
from hw4fast.batched.forms import FIELDS, FORMS, on, rounded_down, sides, single
from hw4fast.kernels.plasma import check
from hw4fast.nn import correlate, draws, float_blur, resize
from hw4fast.transforms import weather
from hw4fast.transforms.blur import streak
from hw4fast.transforms.pixels import luma, px
from hw4fast.transforms.randomness import key_of

Rngs = Sequence[np.random.Generator]

FIELDS["snow"] = FIELDS["spatter"] = lambda size: prod(weather.drawn_at(size))
FIELDS["frost"] = lambda size: 3 * prod(weather.ice_sides(size))
FIELDS["fog"] = lambda size: weather.map_side(size) ** 2


@FORMS.register("snow")
def snow(
    pictures: Tensor,
    *,
    rngs: Rngs,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    kept: float,
) -> Tensor:
    size = weather.drawn_at(sides(pictures))
    keys, degrees = zip(*((key_of(rng), rng.uniform(-135, -45)) for rng in rngs), strict=True)
    coarse, fine, steps = zip(*(weather.enlarged(n, max(1.0, zoom * min(size) / 224)) for n in size), strict=True)
    field = draws("normal", coarse, keys, pictures)
    flakes = above(field, threshold, std, mean, "nearest", fine, steps)[..., None]
    flakes = correlate(flakes, [streak(size, sigma, radius, each) for each in degrees], border="edge")
    return _snowed(pictures, _reduced(flakes[:, : size[0], : size[1]], pictures), kept)


@FORMS.register("frost")
def frost(pictures: Tensor, *, rngs: Rngs, kept: float, amount: float) -> Tensor:
    size, textures = sides(pictures), _textures_on(pictures.device)
    pieces = [weather.piece_of_ice(size, rng) for rng in rngs]
    ice = torch.stack([textures[number][rows, columns] for number, rows, columns in pieces])
    if sides(ice) != size:
        ice = resize(ice, size)
    if pictures.shape[3] == 1:
        ice = rounded_down(_luma(ice.float()))
    return rounded_down(pictures.float() * single(kept) + ice.float() * single(amount))


@FORMS.register("fog")
def fog(pictures: Tensor, *, rngs: Rngs, amount: float, decay: float) -> Tensor:
    height, width = sides(pictures)
    size = weather.map_side((height, width))
    white = torch.tensor(255.0, dtype=torch.float64, device=pictures.device)
    most = pictures.amax((1, 2, 3), keepdim=True).double() / white
    share = torch.where(most > 0, most / (most + amount), most)
    layer = _plasma(size, decay, [key_of(rng) for rng in rngs], pictures)[:, :height, :width]
    lay = layer[..., None] * (share * amount).float()
    return rounded_down(pictures.float() * share.float() + lay * 255.0)


@FORMS.register("spatter")
def spatter(
    pictures: Tensor,
    *,
    rngs: Rngs,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    amount: float,
    kind: str,
) -> Tensor:
    size = weather.drawn_at(sides(pictures))
    scale = px(size)
    liquid = _smooth(draws("normal", size, [key_of(rng) for rng in rngs], pictures), sigma * scale)
    if kind == "water":
        cover = drops(above(liquid, threshold, std * scale, mean))
    else:
        wet = liquid * single(std * scale) + single(mean) > single(threshold)
        cover = _smooth(wet.float(), amount * scale)
        cover = torch.where(cover < single(0.8), 0.0, cover)
    if size != sides(pictures):
        cover = _reduced((cover * 255).round().to(torch.uint8)[..., None], pictures).float()
        cover = cover / torch.tensor(255.0, dtype=torch.float32, device=cover.device)
    colours = np.array(weather.WATER if kind == "water" else weather.MUD, np.float32)
    if pictures.shape[3] == 1:
        colours = luma(colours[None, None])[0, 0]
    cover = cover[..., None]
    if kind == "water":
        return rounded_down(pictures.float() + cover * single(amount) * on(pictures, colours))
    return rounded_down(pictures.float() * (1 - cover) + cover * on(pictures, colours))


def _snowed(pictures: Tensor, flakes: Tensor, kept: float) -> Tensor:
    """flakes: uint8 [n, h, w]. As csrc/pixels.inl's pixels_snow."""
    values = pictures.float()
    luma = _luma(values) * 1.5 + 127.5
    falling = (flakes.int() + flakes.int().flip(1, 2)).float()[..., None]
    white = single(np.float32(1) - np.float32(kept))
    return rounded_down(values * single(kept) + torch.maximum(values, luma) * white + falling)


def _reduced(layer: Tensor, pictures: Tensor) -> Tensor:
    """uint8 [n, H, W, 1] → [n, h, w], the pictures' size."""
    size = sides(pictures)
    return (layer if sides(layer) == size else resize(layer, size))[..., 0]


def _smooth(fields: Tensor, sigma: float) -> Tensor:
    """float32 [n, h, w], each as weather.smooth makes it."""
    size, width = weather.smoothing(sigma)
    return float_blur(fields[..., None], size, width, border="edge")[..., 0]


def _plasma(size: int, decay: float, keys: Sequence[int], where: Tensor) -> Tensor:
    """float32 [n, size, size], 0 … 1: see kernels.plasma. The draws are in the order in which points are set."""
    check(size)
    n = len(keys)
    steps = [size >> level for level in range(size.bit_length() - 1)]
    numbers = draws("uniform", (size * size - 1,), keys, where).mul_(2).sub_(1)
    some = iter(numbers.split([(size // step) ** 2 for step in steps for _ in range(3)], 1))

    def point(total: Tensor, wide: float) -> Tensor:
        return total * 0.25 + next(some).view(total.shape) * wide

    fields = torch.zeros(n, size, size, dtype=torch.float32, device=where.device)
    wibble = np.float32(100)
    for step in steps:
        half, wide = step // 2, float(wibble * wibble)
        corner = fields[:, ::step, ::step]
        right, below = corner.roll(-1, 2), corner.roll(-1, 1)
        middle = point(corner + below + right + below.roll(-1, 2), wide)
        fields[:, half::step, half::step] = middle
        fields[:, ::step, half::step] = point(middle + middle.roll(1, 1) + corner + right, wide)
        fields[:, half::step, ::step] = point(middle + middle.roll(1, 2) + corner + below, wide)
        wibble /= np.float32(decay)
    low = fields.amin((1, 2), keepdim=True)
    spread = fields.amax((1, 2), keepdim=True) - low
    return fields.sub_(low).div_(torch.where(spread > 0, spread, 1.0))


def _luma(values: Tensor) -> Tensor:
    """float32 [..., 1 or 3] → [..., 1], as transforms.pixels.luma."""
    if values.shape[-1] == 1:
        return values
    red, green, blue = (values[..., channel, None] for channel in range(3))
    return red * single(0.299) + green * single(0.587) + blue * single(0.114)


@lru_cache(4)
def _textures_on(device: torch.device) -> Tensor:
    """uint8 [FROSTS, FROST_SIDE, FROST_SIDE, 3]"""
    textures = np.stack([weather.frost_texture(number) for number in range(weather.FROSTS)])
    return torch.from_numpy(textures).to(device)
