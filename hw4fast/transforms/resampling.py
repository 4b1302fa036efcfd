"""Mistakes on the way of a picture to its net: it is read otherwise than the net was trained on.

These take the picture as it was decoded and give what the net reads, instead of the preprocessing that its card says.
None shows an error, and each costs accuracy that nobody looks for (timm's issue 2463: 7 points).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hw4fast.data.preprocessing import Preprocessing
from hw4fast.kernels.jpeg import jpeg
from hw4fast.kernels.resize import resize
from hw4fast.kernels.sample import sample
from hw4fast.transforms.pixels import to_uint8
from hw4fast.transforms.spec import Parameter, Sweep, Transform, register

KINDS = ("no-antialias", "nearest", "bilinear", "bicubic", "lanczos")


def interpolation(picture: np.ndarray, *, preprocessing: Preprocessing, kind: str) -> np.ndarray:
    """Resized with another filter. kind: a key of `data.preprocessing.RESAMPLING`, or "no-antialias": bilinear between
    the four nearest pixels, however much smaller the picture becomes, as OpenCV's and torch's functions do it unless
    they are told otherwise."""
    if kind != "no-antialias":
        return replace(preprocessing, interpolation=kind).fit(picture)
    picture = preprocessing.in_mode(picture)
    rows, columns = places_between(preprocessing, picture.shape[:2])
    down, across = np.broadcast_arrays(rows[:, None], columns[None, :])
    return sample(picture, np.ascontiguousarray(down), np.ascontiguousarray(across))


def places_between(preprocessing: Preprocessing, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where "no-antialias" looks in a picture of that height and width: rows and columns, float32 lines."""
    size, (top, left, height, width) = preprocessing.places(*shape)
    rows, columns = (
        ((np.arange(begin, begin + n) + 0.5) * (whole / resized) - 0.5).astype(np.float32)
        for begin, n, whole, resized in zip((top, left), (height, width), shape, size, strict=True)
    )
    return rows, columns


def framing(picture: np.ndarray, *, preprocessing: Preprocessing, kind: str) -> np.ndarray:
    """Another part of the picture. kind: "stretch": all of it, whatever its shape; "tight": the shorter side at the
    crop's own size, no margin; "crop-first": a crop of the net's size from the middle, before anything is resized."""
    rows, columns = preprocessing.crop
    if kind == "stretch":
        return replace(preprocessing, resize="stretch", resize_size=None).fit(picture)
    if kind == "tight":
        return replace(preprocessing, resize="shorter-side", resize_size=max(rows, columns)).fit(picture)
    height, width = min(rows, picture.shape[0]), min(columns, picture.shape[1])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    middle = picture[top : top + height, left : left + width]
    return replace(preprocessing, resize="stretch", resize_size=None).fit(middle)


def normalisation(picture: np.ndarray, *, preprocessing: Preprocessing, kind: str) -> np.ndarray:
    """Other numbers than the card's. kind: "none": values in 0…1; "half": in −1…1, mean and deviation ½. It is what the
    net then gets, as the picture that would give it that, rounded to grey levels: some 60 of them are left of 256."""
    values = preprocessing.fit(picture) / 255.0
    turned = slice(None, None, -1) if preprocessing.mode == "BGR" else slice(None)
    mean, std = (np.asarray(numbers, np.float64)[turned] for numbers in (preprocessing.mean, preprocessing.std))
    wrong = values if kind == "none" else 2 * values - 1
    return to_uint8(preprocessing.divisor * (mean + std * wrong))


def reencode(picture: np.ndarray, *, preprocessing: Preprocessing, quality: int) -> np.ndarray:
    """Written as JPEG at its own size, before it is resized: what chats and content networks do."""
    return preprocessing.fit(jpeg(picture, quality))


def thumbnail(picture: np.ndarray, *, preprocessing: Preprocessing, side: int) -> np.ndarray:
    """Reduced to a shorter side of `side` pixels first: a preview that was taken for the picture. A smaller picture
    stays."""
    short = min(picture.shape[:2])
    if short > side:
        size = tuple(max(1, round(n * side / short)) for n in picture.shape[:2])
        picture = resize(picture, (size[0], size[1]), threads=1)
    return preprocessing.fit(picture)


register(
    Transform(
        name="interpolation",
        apply=interpolation,
        parameters={
            "kind": Parameter(
                choices=("no-antialias", "nearest", "bilinear", "bicubic", "lanczos"), default="no-antialias"
            )
        },
        level="kind",
        severities=({"kind": "no-antialias"},),
        summary="Resized otherwise than the net was trained: without antialiasing, unless `kind` says otherwise.",
        family="resampling",
        suffix=False,
        reads=True,
    )
)
register(
    Transform(
        name="framing",
        apply=framing,
        parameters={"kind": Parameter(choices=("stretch", "tight", "crop-first"), default="stretch")},
        level="kind",
        severities=({"kind": "stretch"},),
        summary="Another part of the picture: stretched to the net's shape, unless `kind` says otherwise.",
        family="resampling",
        suffix=False,
        reads=True,
    )
)
register(
    Transform(
        name="normalisation",
        apply=normalisation,
        parameters={"kind": Parameter(choices=("none", "half"), default="none")},
        level="kind",
        severities=({"kind": "none"},),
        summary="Mean and standard deviation forgotten, or ½ for both: what the net gets is spread otherwise.",
        family="resampling",
        suffix=False,
        reads=True,
    )
)
register(
    Transform(
        name="reencode",
        apply=reencode,
        parameters={"quality": Parameter(1, 100, whole=True)},
        level="quality",
        severities=(85, 70, 50, 30, 15),
        summary="Written as JPEG of that quality at its own size, before it is resized.",
        family="resampling",
        reads=True,
        sweep=Sweep(100, 1),
    )
)
register(
    Transform(
        name="thumbnail",
        apply=thumbnail,
        parameters={"side": Parameter(1, 4096, whole=True, unit="pixels")},
        level="side",
        severities=(192, 144, 112, 80, 56),
        summary="Reduced to a shorter side of so many pixels first.",
        family="resampling",
        reads=True,
        sweep=Sweep(256, 8, logarithmic=True),
    )
)
