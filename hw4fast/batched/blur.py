"""Batched forms of transforms.blur."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from hw4fast.batched.forms import FORMS, look_up, on, sides
from hw4fast.kernels.gaussian_blur import default_sigma
from hw4fast.nn import correlate, fixed_blur, shuffle
from hw4fast.nn import zoom_blur as zoomed
from hw4fast.transforms.blur import brightened, disk_of, size_for, streak
from hw4fast.transforms.pixels import px
from hw4fast.transforms.randomness import key_of


@FORMS.register("blur")
def blur(pictures: Tensor, *, size: int, sigma: float | None) -> Tensor:
    return fixed_blur(pictures, size, [default_sigma(size) if sigma is None else sigma])


@FORMS.register("trick")
def trick(pictures: Tensor, *, rngs: Sequence[np.random.Generator], high: float) -> Tensor:
    return fixed_blur(pictures, 51, [rng.uniform(0.1, high) for rng in rngs])


@FORMS.register("gaussian_blur")
def gaussian_blur(pictures: Tensor, *, sigma: float) -> Tensor:
    return _gaussian(pictures, sigma * px(sides(pictures)))


@FORMS.register("glass_blur")
def glass_blur(
    pictures: Tensor, *, rngs: Sequence[np.random.Generator], sigma: float, reach: int, turns: int
) -> Tensor:
    width, near = sigma * px(sides(pictures)), max(1, round(reach * px(sides(pictures))))
    moved = shuffle(_gaussian(pictures, width), near, turns, [key_of(rng) for rng in rngs])
    return _gaussian(moved, width)


@FORMS.register("defocus_blur")
def defocus_blur(pictures: Tensor, *, radius: float, alias: float) -> Tensor:
    rows, columns, weights, gain = disk_of(sides(pictures), radius, alias)
    blurred = correlate(pictures, [(rows, columns, weights)], rounding="down")
    return look_up(blurred, on(pictures, brightened(gain))) if gain > 1 else blurred


@FORMS.register("motion_blur")
def motion_blur(pictures: Tensor, *, rngs: Sequence[np.random.Generator], sigma: float, radius: int | None) -> Tensor:
    taps = [streak(sides(pictures), sigma, radius, rng.uniform(-45, 45)) for rng in rngs]
    return correlate(pictures, taps, border="edge", rounding="down")


@FORMS.register("zoom_blur")
def zoom_blur(pictures: Tensor, *, factor: float, step: float) -> Tensor:
    return zoomed(pictures, np.arange(1, factor, step))


def _gaussian(pictures: Tensor, sigma: float) -> Tensor:
    return fixed_blur(pictures, size_for(sigma), [sigma], border="edge", rounding="down")
