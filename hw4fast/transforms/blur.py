"""Blurs: ImageNet-C's (D. Hendrycks and T. Dietterich, ICLR 2019) and the homework's."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, cos, hypot, radians, sin

import numpy as np

from hw4fast.kernels.correlate import FARTHEST, correlate
from hw4fast.kernels.gaussian_blur import LARGEST_KERNEL
from hw4fast.kernels.gaussian_blur import gaussian_blur as kernel
from hw4fast.kernels.noise import shuffle
from hw4fast.kernels.pixels import look_up
from hw4fast.kernels.zoom_blur import zoom_blur as zoom_kernel
from hw4fast.transforms.pixels import px, rounded_down
from hw4fast.transforms.randomness import key_of
from hw4fast.transforms.spec import Parameter, Sweep, Transform, register

WIDE = 100  # pixels of a disk's radius; from here on it isn't kept: it takes some 24 bytes a pixel


def blur(picture: np.ndarray, *, size: int, sigma: float | None) -> np.ndarray:
    """Separable Gaussian blur, uint8 [h, w, c] → the same, at most 1 grey level beside the exact value rounded.

    size: of the picture's own pixels, odd. sigma: likewise; OpenCV's for that size if None.
    In fixed point: the same bits on every machine. On one thread: a picture takes less time than starting another.
    """
    return kernel(picture, size, sigma, threads=1)


def trick(picture: np.ndarray, *, rng: np.random.Generator, high: float) -> np.ndarray:
    """The homework's chain, Resize 224² → CenterCrop → ToTensor → Normalize → ColorJitter() → GaussianBlur(51), on a
    picture that is at its size already: ColorJitter() without arguments changes nothing, and a blur whose weights sum
    to 1 may as well come before Normalize. So it is a blur of 51 pixels, sigma drawn evenly from 0.1 … high."""
    return blur(picture, size=51, sigma=rng.uniform(0.1, high))


def gaussian_blur(picture: np.ndarray, *, sigma: float) -> np.ndarray:
    """Within four sigma, the border's pixels going on beyond it (scikit-image's filter). sigma: px."""
    return _gaussian(picture, sigma * px(picture.shape))


def glass_blur(picture: np.ndarray, *, rng: np.random.Generator, sigma: float, reach: int, turns: int) -> np.ndarray:
    """Blurred, pixels moved about, blurred again. sigma, reach: px; they are moved over at least one pixel, `turns`
    times."""
    width = sigma * px(picture.shape)
    near = max(1, round(reach * px(picture.shape)))
    return _gaussian(shuffle(_gaussian(picture, width), near, turns, key_of(rng)), width)


def defocus_blur(picture: np.ndarray, *, radius: float, alias: float) -> np.ndarray:
    """The mean over a disk whose rim is softened by a Gaussian, from a radius of 8 pixels on a little brighter than it
    should be (`disk`). radius: px; alias: the Gaussian's sigma, pixels of the kernel."""
    rows, columns, weights, gain = disk_of(picture.shape[:2], radius, alias)
    blurred = correlate(picture, rows, columns, weights, rounding="down")
    return look_up(blurred, brightened(gain)) if gain > 1 else blurred


def motion_blur(picture: np.ndarray, *, rng: np.random.Generator, sigma: float, radius: int | None) -> np.ndarray:
    """The weighted mean along a line within 45° of the horizontal, from the pixel on to one side.

    sigma: px, of half a Gaussian. radius: px, half of the line's length; 3 sigma if None.
    """
    taps = streak(picture.shape[:2], sigma, radius, rng.uniform(-45, 45))
    return correlate(picture, *taps, border="edge", rounding="down")


def zoom_blur(picture: np.ndarray, *, factor: float, step: float) -> np.ndarray:
    """The mean of the picture and of copies enlarged 1, 1 + step, … up to below `factor`."""
    return zoom_kernel(picture, np.arange(1, factor, step))


def size_for(sigma: float) -> int:
    """Of the kernel that `gaussian_blur` takes for a sigma in pixels of the picture's own."""
    return min(2 * int(4 * sigma + 0.5) + 1, LARGEST_KERNEL)


def _gaussian(picture: np.ndarray, sigma: float) -> np.ndarray:
    return kernel(picture, size_for(sigma), sigma, threads=1, border="edge", rounding="down")


def disk_of(size: tuple[int, ...], radius: float, alias: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """`disk` for a picture of that height and width. radius: px."""
    wide = radius * px(size)
    return (disk if wide < WIDE else disk.__wrapped__)(wide, alias)


def brightened(gain: float) -> np.ndarray:
    """uint8 [256]: grey levels, multiplied."""
    return rounded_down((np.arange(256) + 0.5) * gain)


@lru_cache(maxsize=64)
def disk(radius: float, alias: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Rows, columns, weights (which sum to 1) of the published kernel, and what all are to be multiplied by: a disk of
    pixels, blurred by 3×3 taps up to a radius of 8, by 5×5 beyond. From 8 on it reaches the border of the array that
    it is blurred in, is mirrored there, and so weighs more than before: 1.3 % at severity 4, 1.1 % at 5."""
    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    places = np.arange(-reach, reach + 1)
    inside = (places[:, None] ** 2 + places**2 <= radius**2).astype(np.float64)
    line = np.exp(-0.5 * (np.arange(-taps, taps + 1) / alias) ** 2)
    line /= line.sum()
    before = inside.sum()
    for axis in range(2):  # mirrored at the kernel's own border, as OpenCV does
        mirrored = np.pad(inside, [(taps, taps) if a == axis else (0, 0) for a in range(2)], "reflect")
        inside = sum(w * mirrored.take(range(k, k + len(places)), axis) for k, w in enumerate(line))
    rows, columns = np.nonzero(inside > 1e-9)
    gain = inside.sum() / before
    return rows - reach, columns - reach, inside[rows, columns] / inside.sum(), gain if gain > 1 + 1e-9 else 1.0


def streak(
    size: tuple[int, ...], sigma: float, radius: int | None, degrees: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and weights of a line that leaves the pixel at that angle, in a picture of that height and width.
    sigma, radius: px, see `motion_blur`."""
    scale = px(size)
    width = sigma * scale
    reach = ceil(3 * width) if radius is None else round(radius * scale)
    number = 2 * min(max(reach, 1), FARTHEST // 2) + 1
    down, across = (number * f(radians(degrees)) for f in (sin, cos))
    length = hypot(down, across)
    steps = np.arange(number)
    rows, columns = (np.ceil(steps * side / length - 0.5).astype(np.int64) for side in (down, across))
    weights = np.exp(-0.5 * (steps / width) ** 2)
    h, w = size
    beyond = np.flatnonzero((abs(rows) >= h) | (abs(columns) >= w))  # the line ends where the picture does
    kept = slice(0, beyond[0] if len(beyond) else number)
    return rows[kept], columns[kept], weights[kept] / weights[kept].sum()


register(
    Transform(
        name="blur",
        apply=blur,
        parameters={"size": Parameter(1, LARGEST_KERNEL, odd=True), "sigma": Parameter(0.01, 500)},
        level="size",
        severities=(3, 7, 13, 25, 51),
        summary="Gaussian blur; the level is the kernel's size in pixels (odd).",
        family="blur",
        sweep=Sweep(1, 255, logarithmic=True),
        same_as="gaussian_blur",
    )
)
register(
    Transform(
        name="trick",
        apply=trick,
        parameters={"high": Parameter(0.1, 500)},
        level="high",
        severities=(0.5, 1, 2, 4, 8),
        summary="The homework's trick: a blur of 51 pixels, sigma drawn from 0.1 … high (there: 2).",
        family="blur",
        suffix=False,
        random=True,  # and so no sweep: of the level, how strong it is is drawn
        same_as="gaussian_blur",
    )
)
register(
    Transform(
        name="gaussian_blur",
        apply=gaussian_blur,
        parameters={"sigma": Parameter(0.01, 100, unit="px")},
        level="sigma",
        severities=(1, 2, 3, 4, 6),
        summary="Gaussian blur; the level is its sigma.",
        family="blur",
        suffix=False,
        sweep=Sweep(0.1, 40, logarithmic=True),
    )
)
register(
    Transform(
        name="defocus_blur",
        apply=defocus_blur,
        parameters={
            "radius": Parameter(0.1, 60, unit="px"),
            "alias": Parameter(0.01, 5, default=0.5),
        },
        level="radius",
        severities=(
            {"radius": 3, "alias": 0.1},
            {"radius": 4, "alias": 0.5},
            {"radius": 6, "alias": 0.5},
            {"radius": 8, "alias": 0.5},
            {"radius": 10, "alias": 0.5},
        ),
        summary="Out of focus: the mean over a disk of that radius.",
        family="blur",
        sweep=Sweep(0.5, 60, logarithmic=True),
    )
)
register(
    Transform(
        name="glass_blur",
        apply=glass_blur,
        parameters={
            "sigma": Parameter(0.01, 50, unit="px"),
            "reach": Parameter(1, 50, whole=True, unit="px"),
            "turns": Parameter(0, 20, whole=True),
        },
        level="severity",
        severities=(
            {"sigma": 0.7, "reach": 1, "turns": 2},
            {"sigma": 0.9, "reach": 2, "turns": 1},
            {"sigma": 1, "reach": 2, "turns": 3},
            {"sigma": 1.1, "reach": 3, "turns": 2},
            {"sigma": 1.5, "reach": 4, "turns": 2},
        ),
        origin={"sigma": 0.01, "turns": 0},
        sweep=Sweep(0, 4.99),  # not 5: at a whole severity the draws are its own
        summary="Frosted glass: blurred, pixels moved about, blurred again.",
        family="blur",
        random=True,
    )
)
register(
    Transform(
        name="motion_blur",
        apply=motion_blur,
        parameters={
            "sigma": Parameter(0.1, 200, unit="px"),
            "radius": Parameter(1, 500, whole=True, unit="px"),
        },
        level="sigma",
        severities=(
            {"sigma": 3, "radius": 10},
            {"sigma": 5, "radius": 15},
            {"sigma": 8, "radius": 15},
            {"sigma": 12, "radius": 15},
            {"sigma": 15, "radius": 20},
        ),
        summary="A streak within 45° of the horizontal; the level is the sigma of its fading.",
        family="blur",
        suffix=False,
        random=True,
        sweep=Sweep(0.3, 80, logarithmic=True),
    )
)
register(
    Transform(
        name="zoom_blur",
        apply=zoom_blur,
        parameters={"factor": Parameter(1, 10), "step": Parameter(0.01, 1, default=0.02)},
        level="factor",
        severities=(
            {"factor": 1.11, "step": 0.01},
            {"factor": 1.16, "step": 0.01},
            {"factor": 1.21, "step": 0.02},
            {"factor": 1.26, "step": 0.02},
            {"factor": 1.31, "step": 0.03},
        ),
        summary="Zoomed while exposed: the mean of copies enlarged up to that factor.",
        family="blur",
        sweep=Sweep(1.01, 3, logarithmic=True),
    )
)
