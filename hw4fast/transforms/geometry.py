"""Where pixels are."""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np

from hw4fast.transforms.pixels import to_uint8
from hw4fast.transforms.spec import Parameter, Transform, register

FILLS = {"edge": None, "black": 0, "white": 255}  # None: the nearest pixel of the picture


def rotate(picture: np.ndarray, *, rng: np.random.Generator, degrees: float, fill: str) -> np.ndarray:
    """Turns the picture about its centre, uint8 [h, w, c] → the same size, bilinear.

    degrees: counter-clockwise as it is looked at. fill: a key of FILLS, what is seen beyond the border.
    """
    height, width = picture.shape[:2]
    angle = radians(degrees)
    down = np.arange(height)[:, None] - (height - 1) / 2
    right = np.arange(width)[None, :] - (width - 1) / 2
    rows = (height - 1) / 2 + right * sin(angle) + down * cos(angle)
    columns = (width - 1) / 2 + right * cos(angle) - down * sin(angle)
    value = FILLS[fill]
    framed = np.pad(picture, ((1, 1), (1, 1), (0, 0)), "edge")
    if value is not None:  # one pixel of what lies beyond: samples fade into it
        framed[[0, -1]] = framed[:, [0, -1]] = value
    return to_uint8(_bilinear(framed, rows + 1, columns + 1))


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Samples [h, w, c] at float coordinates [H, W] → [H, W, c]; outside, the nearest pixel."""
    rows, columns = np.clip(rows, 0, image.shape[0] - 1), np.clip(columns, 0, image.shape[1] - 1)
    top = np.minimum(rows.astype(np.intp), image.shape[0] - 2)
    left = np.minimum(columns.astype(np.intp), image.shape[1] - 2)
    y = (rows - top).astype(np.float32)[..., None]
    x = (columns - left).astype(np.float32)[..., None]
    upper = image[top, left] * (1 - x) + image[top, left + 1] * x
    lower = image[top + 1, left] * (1 - x) + image[top + 1, left + 1] * x
    return upper * (1 - y) + lower * y


register(
    Transform(
        name="rotate",
        apply=rotate,
        parameters={
            "degrees": Parameter(-360, 360),
            "fill": Parameter(choices=tuple(FILLS), default="edge"),
        },
        level="degrees",
        severities=(5, 10, 20, 30, 45),
        summary="Rotation about the centre; the level is in degrees counter-clockwise.",
    )
)
