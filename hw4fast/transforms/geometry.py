"""Where pixels are. What is seen beyond the border is the nearest pixel, black or white (`fill`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, radians, sin, tan

import numpy as np

from hw4fast.kernels.resize import Box, resize
from hw4fast.kernels.sample import warp
from hw4fast.transforms.spec import Parameter, Sweep, Transform, register

FILLS = {"edge": ("edge", 0), "black": ("constant", 0), "white": ("constant", 255)}  # border and fill of `warp`
FILL = Parameter(choices=tuple(FILLS), default="edge")
AXES = {"horizontal": (1,), "vertical": (0,), "both": (0, 1)}
Matrix = Sequence[Sequence[float]]
Size = tuple[int, int]  # height, width


def rotate(picture: np.ndarray, *, degrees: float, fill: str) -> np.ndarray:
    """Turns the picture about its centre, uint8 [h, w, c] → the same size, bilinear.

    degrees: counter-clockwise as it is looked at. fill: a key of FILLS.
    """
    return _warped(picture, rotation(picture.shape[:2], degrees), fill)


def translate(picture: np.ndarray, *, right: float, down: float, fill: str) -> np.ndarray:
    """Moves the picture by shares of its width and height, to whole pixels: it stays as sharp as it was."""
    height, width = picture.shape[:2]
    return _warped(picture, ((1, 0, -round(right * width)), (0, 1, -round(down * height)), (0, 0, 1)), fill)


def scale(picture: np.ndarray, *, factor: float, fill: str) -> np.ndarray:
    """Zooms about the centre, below 1 out and above 1 in: resized as Pillow does, bilinear and antialiased, to sides
    that differ from the picture's by an even number of pixels; then cut, or laid on the fill."""
    size, box, (above, beside) = zoomed(picture.shape[:2], factor)
    resized = resize(picture, size, box, threads=1)
    margins = [(above, above), (beside, beside), (0, 0)]
    if not above and not beside:
        return resized
    border, value = FILLS[fill]
    return np.pad(resized, margins, "edge") if border == "edge" else np.pad(resized, margins, constant_values=value)


def shear(picture: np.ndarray, *, degrees: float, fill: str) -> np.ndarray:
    """Slides every row sideways, the more the farther it is from the middle one, bilinear.

    degrees: what an upright line leans to the right by.
    """
    return _warped(picture, shearing(picture.shape[:2], degrees), fill)


def perspective(picture: np.ndarray, *, rng: np.random.Generator, distortion: float, fill: str) -> np.ndarray:
    """Looks at the picture from a random side, bilinear: each of its corners moves inwards, across and down by up to
    `distortion` of half the side (torchvision's RandomPerspective; there by whole pixels)."""
    return _warped(picture, from_a_side(picture.shape[:2], rng, distortion), fill)


def flip(picture: np.ndarray, *, axis: str) -> np.ndarray:
    """Mirrors the picture: "horizontal" exchanges left and right, "vertical" top and bottom."""
    mirrored = np.flip(picture, AXES[axis])
    result = np.empty(picture.shape, np.uint8)
    for channel in range(picture.shape[2]):  # NumPy copies three channels by threes: that takes five times as long
        result[..., channel] = mirrored[..., channel]
    return result


def crop(picture: np.ndarray, *, share: float) -> np.ndarray:
    """The middle of the picture, `share` of each side, made as large as the whole was (as Pillow does, bilinear)."""
    top, left, height, width = middle(picture.shape[:2], share)
    return resize(picture[top : top + height, left : left + width], picture.shape[:2], threads=1)


def rotation(size: Size, degrees: float) -> Matrix:
    """What `rotate` warps a picture of that height and width by."""
    angle = radians(degrees)
    return _about_centre(size, cos(angle), -sin(angle), sin(angle), cos(angle))


def shearing(size: Size, degrees: float) -> Matrix:
    """What `shear` warps by."""
    return _about_centre(size, 1, tan(radians(degrees)), 0, 1)


def from_a_side(size: Size, rng: np.random.Generator, distortion: float) -> Matrix:
    """What `perspective` warps by."""
    height, width = size
    outer = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])  # in widths and heights; clockwise from the upper left
    corners = (outer + (1 - 2 * outer) * rng.random((4, 2)) * distortion / 2) * (width, height) - 0.5
    return _to_corners(corners.tolist(), width, height)


def zoomed(size: Size, factor: float) -> tuple[Size, Box, tuple[int, int]]:
    """Of `scale`: what a picture is resized to, which part of that is seen, and how much is to be filled above and
    beside it (below and on the other side as much)."""
    height, width = (max(side + 2 * round(side * (factor - 1) / 2), 2 - side % 2) for side in size)
    over, beside = (height - size[0]) // 2, (width - size[1]) // 2
    box = (max(over, 0), max(beside, 0), min(height, size[0]), min(width, size[1]))
    return (height, width), box, (max(-over, 0), max(-beside, 0))


def middle(size: Size, share: float) -> Box:
    """Top, left, height and width of what `crop` enlarges."""
    height, width = max(round(share * size[0]), 1), max(round(share * size[1]), 1)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def _warped(picture: np.ndarray, matrix: Matrix, fill: str) -> np.ndarray:
    border, value = FILLS[fill]
    return warp(picture, matrix, border, value)


def _about_centre(size: Size, a: float, b: float, c: float, d: float) -> Matrix:
    """Output pixel (x, y) from input pixel (a x + b y, c x + d y), both counted from the picture's centre."""
    y, x = ((side - 1) / 2 for side in size)
    return (a, b, x - a * x - b * y), (c, d, y - c * x - d * y), (0, 0, 1)


def _to_corners(corners: Matrix, width: int, height: int) -> Matrix:
    """Output pixel → input pixel, when a picture's corners are seen at `corners`, (x, y), from the upper left on
    clockwise.

    The unit square's way to the corners is P. Heckbert's ("Fundamentals of texture mapping", 1989, 2.2.3) times its
    denominator; its adjugate leads back, and from there to the picture's pixels.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    across, down = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    i = (x1 - x2) * (y3 - y2) - (x3 - x2) * (y1 - y2)
    g, h = across * (y3 - y2) - (x3 - x2) * down, (x1 - x2) * down - across * (y1 - y2)
    a, b, c = (x1 - x0) * i + g * x1, (x3 - x0) * i + h * x3, x0 * i
    d, e, f = (y1 - y0) * i + g * y1, (y3 - y0) * i + h * y3, y0 * i
    u = e * i - f * h, c * h - b * i, b * f - c * e
    v = f * g - d * i, a * i - c * g, c * d - a * f
    z = d * h - e * g, b * g - a * h, a * e - b * d
    return (
        [w * width - q / 2 for w, q in zip(u, z, strict=True)],
        [w * height - q / 2 for w, q in zip(v, z, strict=True)],
        z,
    )


register(
    Transform(
        name="rotate",
        apply=rotate,
        parameters={"degrees": Parameter(-360, 360, unit="degrees counter-clockwise"), "fill": FILL},
        level="degrees",
        severities=(5, 10, 20, 30, 45),
        summary="Rotation about the centre; the level is in degrees counter-clockwise.",
        family="geometry",
        sweep=Sweep(0, 180),
    )
)
register(
    Transform(
        name="translate",
        apply=translate,
        parameters={
            "right": Parameter(-1, 1, unit="of the width"),
            "down": Parameter(-1, 1, default=0, unit="of the height"),
            "fill": FILL,
        },
        level="right",
        severities=(0.02, 0.05, 0.1, 0.2, 0.3),
        summary="Moved by whole pixels; the level is the share of the width to the right, `down` that of the height.",
        family="geometry",
        suffix=False,
        sweep=Sweep(0, 0.5),
    )
)
register(
    Transform(
        name="scale",
        apply=scale,
        parameters={"factor": Parameter(0.05, 20, unit="times as large"), "fill": FILL},
        level="factor",
        severities=(0.9, 0.8, 0.65, 0.5, 0.35),
        summary="Zoom about the centre; the level is a factor, below 1 out, above 1 in.",
        family="geometry",
        sweep=Sweep(1, 0.1, logarithmic=True),
    )
)
register(
    Transform(
        name="shear",
        apply=shear,
        parameters={"degrees": Parameter(-80, 80, unit="degrees to the right"), "fill": FILL},
        level="degrees",
        severities=(5, 10, 20, 30, 45),
        summary="Rows slide sideways; the level is what an upright line leans by, in degrees to the right.",
        family="geometry",
        sweep=Sweep(0, 60),
    )
)
register(
    Transform(
        name="perspective",
        apply=perspective,
        parameters={"distortion": Parameter(0, 1, unit="of half a side"), "fill": FILL},
        level="distortion",
        severities=(0.1, 0.2, 0.3, 0.45, 0.6),
        summary="Seen from a random side; corners move inwards by up to the level times half a side.",
        family="geometry",
        suffix=False,
        random=True,
        sweep=Sweep(0, 0.65),  # from 2/3 on the corners may be those of no convex quadrilateral
    )
)
register(
    Transform(
        name="flip",
        apply=flip,
        parameters={"axis": Parameter(choices=tuple(AXES), default="horizontal")},
        level="axis",
        severities=({"axis": "horizontal"},),
        summary="Mirrored, horizontally unless `axis` says otherwise.",
        family="geometry",
        suffix=False,
    )
)
register(
    Transform(
        name="crop",
        apply=crop,
        parameters={"share": Parameter(0.01, 1, unit="of each side")},
        level="share",
        severities=(0.95, 0.9, 0.8, 0.65, 0.5),
        summary="The middle, at the size of the whole; the level is its share of each side.",
        family="geometry",
        suffix=False,
        sweep=Sweep(1, 0.1, logarithmic=True),
    )
)
