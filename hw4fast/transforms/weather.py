"""Weather: ImageNet-C's (D. Hendrycks and T. Dietterich, ICLR 2019), with frost that is generated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from hw4fast.kernels.correlate import correlate
from hw4fast.kernels.drops import above, drops
from hw4fast.kernels.gaussian_blur import gaussian_blur
from hw4fast.kernels.noise import normal, uniform
from hw4fast.kernels.pixels import snowed, veil
from hw4fast.kernels.plasma import plasma
from hw4fast.kernels.resize import resize
from hw4fast.transforms.blur import size_for, streak
from hw4fast.transforms.pixels import luma, px, rounded_down
from hw4fast.transforms.randomness import key_of
from hw4fast.transforms.spec import Parameter, Sweep, Transform, register

FROSTS, FROST_SIDE = 5, 512  # textures, and their sides in px
DRAWN = 4 * 224**2  # pixels at most that flakes and drops are drawn with where the picture itself has too few
WATER, MUD = (175, 238, 238), (63, 42, 20)  # RGB


def snow(
    picture: np.ndarray,
    *,
    rng: np.random.Generator,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    kept: float,
) -> np.ndarray:
    """Flakes: what of enlarged Gaussian noise exceeds a threshold, drawn out by the wind, once as it is and once turned
    by 180°, on a picture that is whitened.

    mean, std: of the noise, 1 is white. zoom: px of a flake. radius, sigma: px, of the streak, see `motion_blur`.
    kept: the share of the picture that isn't whitened.
    """
    size = drawn_at(picture.shape[:2])
    key, degrees = key_of(rng), rng.uniform(-135, -45)
    coarse, fine, steps = zip(*(enlarged(n, max(1.0, zoom * min(size) / 224)) for n in size), strict=True)
    flakes = above(normal(coarse, key), threshold, std, mean, "nearest", fine, steps)[..., None]
    # the wind blows before the layer is cut to size: what lies beyond the border drifts in
    flakes = correlate(flakes, *streak(size, sigma, radius, degrees), border="edge")[: size[0], : size[1]]
    return snowed(picture, _reduced(flakes, picture), kept)


def drawn_at(size: Sequence[int]) -> tuple[int, int]:
    """The height and width that flakes and drops are drawn at: the picture's, or 224 for the shorter side where it is
    less. They can't be drawn with fewer pixels than they have there; they are drawn larger and reduced."""
    height, width = size
    finer = max(1.0, min(1 / px(size), (DRAWN / (height * width)) ** 0.5))
    return round(height * finer), round(width * finer)


def _reduced(layer: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 1] at the size of `drawn_at` → [h, w], the picture's."""
    size = picture.shape[:2]
    return (layer if layer.shape[:2] == size else resize(layer, size, threads=1))[..., 0]


def enlarged(size: int, zoom: float) -> tuple[int, int, float]:
    """Of how many pixels scipy.ndimage.zoom makes how many, at least `size`, and how far apart these lie in those."""
    coarse = int(np.ceil(size / zoom))
    fine = max(round(coarse * zoom), size)
    return coarse, fine, (coarse - 1) / max(fine - 1, 1)


def frost(picture: np.ndarray, *, rng: np.random.Generator, kept: float, amount: float) -> np.ndarray:
    """kept × picture + amount × a random part of one of five textures of ice."""
    size = picture.shape[:2]
    number, rows, columns = piece_of_ice(size, rng)
    ice = frost_texture(number)[rows, columns]
    if ice.shape[:2] != size:
        ice = resize(ice, size, threads=1)
    if picture.shape[2] == 1:
        ice = rounded_down(luma(ice.astype(np.float32)))
    return veil(picture, None, ice, kept, amount=amount)


def piece_of_ice(size: Sequence[int], rng: np.random.Generator) -> tuple[int, slice, slice]:
    """A texture's number, and the rows and columns of it that lie over a picture of that height and width."""
    number, sides = int(rng.integers(FROSTS)), ice_sides(size)
    top, left = (int(rng.integers(FROST_SIDE - n + 1)) for n in sides)
    return number, slice(top, top + sides[0]), slice(left, left + sides[1])


def ice_sides(size: Sequence[int]) -> tuple[int, int]:
    """Of a piece of ice for a picture of that height and width, in the texture's pixels."""
    scale = min(1 / px(size), FROST_SIDE / max(size))
    height, width = (max(1, min(FROST_SIDE, round(n * scale))) for n in size)
    return height, width


@lru_cache(maxsize=FROSTS)
def frost_texture(number: int) -> np.ndarray:
    """uint8 [FROST_SIDE, FROST_SIDE, 3]: needles of ice that grow from a few seeds at angles of 60°, denser where a
    fractal map is high. The published ones are photographs, which this can't be compared with; these are as bright on
    average (115 … 195) and as uneven (a standard deviation of some 30)."""
    side = FROST_SIDE
    density = plasma(side, 1.9, 2 * number)
    draws = uniform((side, side), 2 * number + 1)
    turn = float(uniform(1, 2 * number + 1, stream=1)[0]) * 60
    ice = np.zeros((side, side, 1), np.float32)
    for arm in range(6):
        seeds = (draws * (1 - 0.6 * density) < 0.004 * (1 + arm % 3))[..., None]
        needles = correlate(seeds.astype(np.uint8) * 255, *_needle(60 * arm + turn, 14 + 9 * (arm % 3)))
        ice += needles
    ice = gaussian_blur(ice, 3, 0.6, threads=1)
    relief = 110 * (density[..., None] - 0.5) + 24 * (ice / max(float(ice.mean(dtype=np.float64)), 1e-6) - 1)
    grain = gaussian_blur(normal((side, side, 1), 2 * number, stream=2), 5, 0.9, threads=1) * 45
    return rounded_down((relief + grain + (115 + 20 * number)) * np.array([0.9, 1, 1.1], np.float32))


def _needle(degrees: float, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    steps = np.arange(length)
    rows, columns = (np.rint(steps * f(np.radians(degrees))).astype(np.int64) for f in (np.sin, np.cos))
    weights = np.linspace(1, 0.15, length)
    return rows, columns, weights / weights.sum()


def fog(picture: np.ndarray, *, rng: np.random.Generator, amount: float, decay: float) -> np.ndarray:
    """(x + amount × a fractal map of 0 … 1) scaled back by most / (most + amount), most: the greatest value of x, and
    white is 1. decay: of the map, the greater the smoother."""
    height, width, channels = picture.shape
    size = map_side((height, width))
    most = int(picture.max()) / 255
    share = most / (most + amount) if most else 0.0
    layer = plasma(size, decay, key_of(rng))[:height, :width]
    return veil(picture, layer, [255.0] * channels, kept=share, amount=amount * share)


def map_side(size: Sequence[int]) -> int:
    """Of the fractal map that covers a picture of that height and width: a power of two."""
    return 1 << (max(*size, 3) - 1).bit_length()


def spatter(
    picture: np.ndarray,
    *,
    rng: np.random.Generator,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    amount: float,
    kind: str,
) -> np.ndarray:
    """Drops of water or mud on the lens, where Gaussian noise, blurred, exceeds a threshold.

    mean, std: of the noise. sigma: px, of its blur. amount: water: how opaque; mud: px, the sigma that rounds the
    drops. The more pixels the noise is blurred over, the less of it is left: its std grows with the picture.
    """
    size = drawn_at(picture.shape[:2])
    scale = px(size)
    liquid = _smooth(normal(size, key_of(rng)), sigma * scale)
    if kind == "water":
        cover = drops(above(liquid, threshold, std * scale, mean))
    else:
        wet = liquid * np.float32(std * scale) + np.float32(mean) > threshold
        cover = _smooth(wet.astype(np.float32), amount * scale)
        cover[cover < 0.8] = 0
    if size != picture.shape[:2]:
        cover = _reduced(np.rint(cover * 255).astype(np.uint8)[..., None], picture) / np.float32(255)
    colours = np.array(WATER if kind == "water" else MUD, np.float32)
    if picture.shape[2] == 1:
        colours = luma(colours[None, None])[0, 0]
    return (
        veil(picture, cover, colours, amount=amount) if kind == "water" else veil(picture, cover, colours, shadow=1.0)
    )


def smoothing(sigma: float) -> tuple[int, float]:
    """Kernel's size and sigma of the blur that drops are made with, pixels."""
    return size_for(sigma), max(sigma, 1e-3)


def _smooth(field: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_blur(field[..., None], *smoothing(sigma), threads=1, border="edge")[..., 0]


register(
    Transform(
        name="snow",
        apply=snow,
        parameters={
            "mean": Parameter(-5, 5),
            "std": Parameter(0, 5),
            "zoom": Parameter(1, 50, unit="px"),
            "threshold": Parameter(0, 5),
            "radius": Parameter(1, 200, whole=True, unit="px"),
            "sigma": Parameter(0.1, 100, unit="px"),
            "kept": Parameter(0, 1),
        },
        level="severity",
        severities=tuple(
            dict(zip(("mean", "std", "zoom", "threshold", "radius", "sigma", "kept"), row, strict=True))
            for row in (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            )
        ),
        origin={"mean": -1.3, "std": 0.3, "kept": 1},  # no noise of Box and Muller's from 24 bits exceeds 5.8 std
        sweep=Sweep(0, 4.99),  # not 5: at a whole severity the draws are its own
        summary="Snow that falls aslant, on a whitened picture.",
        family="weather",
        random=True,
    )
)
register(
    Transform(
        name="frost",
        apply=frost,
        parameters={"kept": Parameter(0, 1), "amount": Parameter(0, 1)},
        level="severity",
        severities=(
            {"kept": 1, "amount": 0.4},
            {"kept": 0.8, "amount": 0.6},
            {"kept": 0.7, "amount": 0.7},
            {"kept": 0.65, "amount": 0.7},
            {"kept": 0.6, "amount": 0.75},
        ),
        origin={"kept": 1, "amount": 0},
        sweep=Sweep(0, 4.99),
        summary="Ice on the window, generated.",
        family="weather",
        random=True,
        note="Not comparable with ImageNet-C's frost, which lays photographs of ice over the picture.",
    )
)
register(
    Transform(
        name="fog",
        apply=fog,
        parameters={"amount": Parameter(0, 20), "decay": Parameter(0.5, 20, default=2)},
        level="severity",
        severities=(
            {"amount": 1.5, "decay": 2},
            {"amount": 2, "decay": 2},
            {"amount": 2.5, "decay": 1.7},
            {"amount": 2.5, "decay": 1.5},
            {"amount": 3, "decay": 1.4},
        ),
        origin={"amount": 0, "decay": 2},
        sweep=Sweep(0, 4.99),
        summary="Fog: a fractal veil, with less contrast behind it.",
        family="weather",
        random=True,
    )
)
register(
    Transform(
        name="spatter",
        apply=spatter,
        parameters={
            "mean": Parameter(-5, 5),
            "std": Parameter(0, 5),
            "sigma": Parameter(0.1, 50, unit="px"),
            "threshold": Parameter(0, 5),
            "amount": Parameter(0.1, 10),
            "kind": Parameter(choices=("water", "mud"), default="water"),
        },
        level="severity",
        severities=tuple(
            dict(zip(("mean", "std", "sigma", "threshold", "amount", "kind"), row, strict=True))
            for row in (
                (0.65, 0.3, 4, 0.69, 0.6, "water"),
                (0.65, 0.3, 3, 0.68, 0.6, "water"),
                (0.65, 0.3, 2, 0.68, 0.5, "water"),
                (0.65, 0.3, 1, 0.65, 1.5, "mud"),
                (0.67, 0.4, 1, 0.65, 1.5, "mud"),
            )
        ),
        origin={"std": 0},
        sweep=Sweep(0, 4.99),
        summary="Drops on the lens: water up to severity 3, and mud beyond.",
        family="weather",
        random=True,
    )
)
