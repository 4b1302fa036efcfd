"""What cameras and files do: ImageNet-C's brightness, contrast, saturation, elastic distortion, pixels and JPEG
(D. Hendrycks and T. Dietterich, ICLR 2019; elastic as imagecorruptions has it)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hw4fast.kernels.gaussian_blur import LARGEST_KERNEL, gaussian_blur
from hw4fast.kernels.jpeg import jpeg as jpeg_kernel
from hw4fast.kernels.noise import uniform
from hw4fast.kernels.pixels import add_value, look_up, scale_saturation
from hw4fast.kernels.resize import resize
from hw4fast.kernels.sample import sample
from hw4fast.transforms.pixels import px, rounded_down
from hw4fast.transforms.randomness import key_of
from hw4fast.transforms.spec import Parameter, Sweep, Transform, register


def brightness(picture: np.ndarray, *, amount: float) -> np.ndarray:
    """Value of the hexcone model + amount, where white is 1: a colour keeps hue and saturation."""
    if picture.shape[2] == 3:
        return add_value(picture, amount)
    return look_up(picture, rounded_down(np.arange(256) + 255 * amount + 1e-6))


def contrast(picture: np.ndarray, *, factor: float) -> np.ndarray:
    """Distances from the channel's mean × factor."""
    height, width, channels = picture.shape
    short = np.uint16 if height <= 257 else np.uint64  # along whole rows first, in few bytes: a fifth of the time
    sums = picture.reshape(height, -1).sum(axis=0, dtype=short)
    means = sums.reshape(width, channels).sum(axis=0, dtype=np.int64) / (height * width)
    return look_up(picture, rounded_down((np.arange(256) - means[:, None]) * factor + means[:, None] + 1e-6))


def saturate(picture: np.ndarray, *, factor: float, offset: float) -> np.ndarray:
    """Saturation of the hexcone model × factor + offset; a picture of one channel stays as it is."""
    return scale_saturation(picture, factor, offset) if picture.shape[2] == 3 else picture.copy()


def elastic(picture: np.ndarray, *, rng: np.random.Generator, alpha: float, smooth: float) -> np.ndarray:
    """Every pixel taken from a place nearby: even noise of ± 0.5 % of the height, blurred, × alpha; at another size
    than 224 as many times farther as the picture is larger.

    smooth: sigma of the blur, as a share of the side (P. Simard et al., ICDAR 2003).
    """
    height, width, _ = picture.shape
    moves = uniform((height, width, 2), key_of(rng))
    moves -= np.float32(0.5)
    moves = gaussian_blur(moves, *smoothing((height, width), smooth), threads=1, border="reflect")
    moves *= np.float32(farthest((height, width), alpha))
    rows = np.arange(height, dtype=np.float32)[:, None] + moves[..., 1]
    columns = np.arange(width, dtype=np.float32) + moves[..., 0]
    return sample(picture, rows, columns, border="reflect", rounding="down")


def smoothing(size: tuple[int, int], smooth: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """The kernel's sizes and sigmas, across and down, of the blur of moves in a picture of that height and width."""
    sigmas = max(smooth * size[1], 1e-3), max(smooth * size[0], 1e-3)
    across, down = (min(2 * int(3 * sigma + 0.5) + 1, LARGEST_KERNEL) for sigma in sigmas)
    return (across, down), sigmas


def farthest(size: tuple[int, int], alpha: float) -> float:
    """What noise of ± ½ is multiplied by to be moves in pixels."""
    return 2 * 0.005 * size[0] * alpha * px(size)


def pixelate(picture: np.ndarray, *, factor: float) -> np.ndarray:
    """Reduced to `factor` of its sides by means over boxes, then enlarged with the nearest pixel."""
    height, width, _ = picture.shape
    small = max(1, int(height * factor)), max(1, int(width * factor))
    reduced = resize(picture, small, interpolation="box", threads=1)
    (rows, simple), (columns, simple_too) = (nearest_places(*n) for n in zip(small, (height, width), strict=True))
    if simple and simple_too:
        return resize(reduced, (height, width), interpolation="box", threads=1)
    return reduced[rows[:, None], columns]


@lru_cache(maxsize=64)
def nearest_places(short: int, long: int) -> tuple[np.ndarray, bool]:
    """Which of `short` pixels Pillow makes each of `long` from, and whether a box, enlarged, finds the same: of pixels
    right between two, the rounding of sums decides."""
    step = short / long
    places = np.add.accumulate(np.r_[step / 2, np.full(long - 1, step)]).astype(np.intp)
    return places, bool((places == ((np.arange(long) + 0.5) * step).astype(np.intp)).all())


def jpeg(picture: np.ndarray, *, quality: int) -> np.ndarray:
    """Written as JPEG and read again (libjpeg-turbo's bytes, colour at half the resolution)."""
    return jpeg_kernel(picture, quality)


register(
    Transform(
        name="brightness",
        apply=brightness,
        parameters={"amount": Parameter(-1, 1, unit="of the range")},
        level="amount",
        severities=(0.1, 0.2, 0.3, 0.4, 0.5),
        summary="Brighter, hue and saturation kept.",
        family="digital",
        suffix=False,
        sweep=Sweep(0, 1),
    )
)
register(
    Transform(
        name="contrast",
        apply=contrast,
        parameters={"factor": Parameter(0, 100)},
        level="factor",
        severities=(0.4, 0.3, 0.2, 0.1, 0.05),
        summary="Contrast about each channel's mean, times a factor; below 1 is flatter.",
        family="digital",
        suffix=False,
        sweep=Sweep(1, 0.01, logarithmic=True),
    )
)
register(
    Transform(
        name="saturate",
        apply=saturate,
        parameters={"factor": Parameter(0, 100), "offset": Parameter(-1, 1, default=0)},
        level="factor",
        severities=(
            {"factor": 0.3, "offset": 0},
            {"factor": 0.1, "offset": 0},
            {"factor": 2, "offset": 0},
            {"factor": 5, "offset": 0.1},
            {"factor": 20, "offset": 0.2},
        ),
        summary="Colours paler (severities 1 and 2), then more and more garish.",
        family="digital",
        sweep=Sweep(1, 50, logarithmic=True),
    )
)
register(
    Transform(
        name="elastic",
        apply=elastic,
        parameters={"alpha": Parameter(0, 2000), "smooth": Parameter(0.0005, 0.5, default=0.01)},
        level="alpha",
        severities=(12.5, 16.25, 21.25, 25, 30),
        summary="Elastic distortion; alpha is its strength.",
        note="Not comparable with ImageNet-C's elastic: it is imagecorruptions', with constants of its own.",
        family="digital",
        suffix=False,
        random=True,
        sweep=Sweep(1, 400, logarithmic=True),
    ),
    aliases=("elastic_transform",),
)
register(
    Transform(
        name="pixelate",
        apply=pixelate,
        parameters={"factor": Parameter(0.001, 1, unit="of the sides")},
        level="factor",
        severities=(0.6, 0.5, 0.4, 0.3, 0.25),
        summary="Large pixels: reduced to that share of its sides, then enlarged.",
        family="digital",
        suffix=False,
        sweep=Sweep(1, 0.02, logarithmic=True),
    )
)
register(
    Transform(
        name="jpeg",
        apply=jpeg,
        parameters={"quality": Parameter(1, 100, whole=True)},
        level="quality",
        severities=(25, 18, 15, 10, 7),
        summary="Written as JPEG of that quality, and read again.",
        family="digital",
        sweep=Sweep(100, 1),
    ),
    aliases=("jpeg_compression",),
)
