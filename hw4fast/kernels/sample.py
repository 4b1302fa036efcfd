"""Bilinear sampling: what a picture shows between its pixels, and beyond them.

A place is (row, column) in pixels, pixel centres at whole numbers. With r and c rounded down and y, x what is left,

    value = (1 − y) ((1 − x) p[r, c] + x p[r, c+1]) + y ((1 − x) p[r+1, c] + x p[r+1, c+1])

border, what p is beyond the picture: "edge", the nearest pixel; "reflect", the picture mirrored at its edge, again and
again (d c b a | a b c d | d c b a; scipy.ndimage's 'reflect'); "constant", `fill`, into which samples fade over one
pixel (its 'grid-constant'). A place that is NaN, or under "reflect" 2^24 pixels away or more, counts as above or left
of the picture: there lies the fill, or the picture's nearest pixel.

In fixed point, so the same bytes on every machine: x and y in units of 2^−14, the step across rounded to 2^−7 of a
grey level. Before its last rounding a result is at most 0.04 grey levels beside the exact one in pictures of up to 512
pixels a side. Beyond, the resolution of float32 places tells: at 4096 pixels by up to 0.25 grey levels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hw4fast.kernels import compiled, isas

CHANNELS = (1, 3)
BORDERS = ("edge", "reflect", "constant")
ROUNDINGS = ("nearest", "down")


def sample(
    picture: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    border: str = "edge",
    fill: int = 0,
    rounding: str = "nearest",
    isa: str = "",
    threads: int = 1,
) -> np.ndarray:
    """A picture, uint8 [h, w, 1 or 3], at places rows and columns, float32 [H, W] each → uint8 [H, W, channels].

    border, fill (0…255): see above. rounding: "nearest", halves to even, or "down", as a cast to uint8 does.
    isa: an instruction set of `hw4fast.kernels.isas()`; empty for HW4FAST_ISA or the best.
    threads: 0 for all cores; the result does not depend on it.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape, border, fill, rounding or `isa`, or too large a
    picture (2^24 pixels a side, 2^31 bytes).
    """
    for places in (rows, columns):
        if places.dtype != np.float32:
            raise TypeError(f"rows and columns must be float32, not {places.dtype}")
    if rows.ndim != 2 or rows.shape != columns.shape:
        raise ValueError(f"rows and columns must be [H, W] both, not {list(rows.shape)} and {list(columns.shape)}")
    source, arguments = _source(picture, border, fill, rounding)
    rows, columns = np.ascontiguousarray(rows), np.ascontiguousarray(columns)
    output = np.empty((*rows.shape, picture.shape[2]), np.uint8)
    addresses = rows.ctypes.data, columns.ctypes.data, rows.shape, output.ctypes.data
    compiled().sample(source.ctypes.data, *arguments, *addresses, isa, threads)
    return output


def warp(
    picture: np.ndarray,
    matrix: Any,
    border: str = "edge",
    fill: int = 0,
    rounding: str = "nearest",
    isa: str = "",
    threads: int = 1,
) -> np.ndarray:
    """A picture, uint8 [h, w, 1 or 3], through a homography → the same shape.

    matrix: float64 [3, 3]; output pixel (x, y) shows the input at (X/Z, Y/Z), where (X, Y, Z) = matrix · (x, y, 1), in
    float64 and then rounded to float32. The other arguments and errors are those of `sample`.
    """
    entries = np.ascontiguousarray(matrix, np.float64)
    if entries.shape != (3, 3):
        raise ValueError(f"matrix must be [3, 3], not {list(entries.shape)}")
    source, arguments = _source(picture, border, fill, rounding)
    output = np.empty(picture.shape, np.uint8)
    there = entries.ravel().tolist(), picture.shape[:2], output.ctypes.data
    compiled().warp(source.ctypes.data, *arguments, *there, isa, threads)
    return output


def _source(picture: np.ndarray, border: str, fill: Any, rounding: str) -> tuple[np.ndarray, tuple[Any, ...]]:
    """(The picture with whole rows, the kernel's arguments shape … down)."""
    _check(picture, border, rounding)
    whole = picture.strides[2] == 1 and picture.strides[1] == picture.shape[2]
    source = picture if whole else np.ascontiguousarray(picture)
    return source, (picture.shape, source.strides[0], border, operator.index(fill), rounding == "down")


def _check(picture: np.ndarray, border: str, rounding: str) -> None:
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] not in CHANNELS or not picture.size:
        raise ValueError(f"a picture must be [h, w, 1 or 3] with pixels, not {list(picture.shape)}")
    for name, value, known in (("border", border, BORDERS), ("rounding", rounding, ROUNDINGS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {list(known)}, not {value!r}")


def reference(
    picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, border: str = "edge", fill: int = 0
) -> np.ndarray:
    """`sample` in float64 and not rounded, slow and obvious."""
    _check(picture, border, "nearest")
    (y, top), (x, left) = (
        _split(_beside(places, length, border)) for places, length in zip((rows, columns), picture.shape, strict=False)
    )
    across = [
        (1 - x) * _pixels(picture, r, left, border, fill) + x * _pixels(picture, r, left + 1, border, fill)
        for r in (top, top + 1)
    ]
    return (1 - y) * across[0] + y * across[1]


def _beside(places: np.ndarray, length: int, border: str) -> np.ndarray:
    """float64 places in −1 … length, where the same is to be seen."""
    places = places.astype(np.float64)
    if border == "reflect":
        places = np.where(np.abs(places) < 2**24, places, np.nan)
        there = np.mod(places + 0.5, 2 * length, where=~np.isnan(places), out=np.full_like(places, np.nan))
        places = np.minimum(there, 2 * length - there) - 0.5
    return np.clip(np.where(np.isnan(places), -1, places), -1, length)


def _split(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(what is left [H, W, 1], the whole number below)"""
    below = np.floor(places)
    return (places - below)[..., None], below.astype(np.int64)


def _pixels(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, border: str, fill: int) -> np.ndarray:
    """float64 [H, W, c]: the pixels at whole places, of which those outside are one pixel away at most or don't
    count."""
    h, w, _ = picture.shape
    found = picture[rows.clip(0, h - 1), columns.clip(0, w - 1)].astype(np.float64)
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    return np.where(inside[..., None] | (border != "constant"), found, fill)


def places(matrix: Any, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns), float64 [height, width]: where `warp` looks."""
    m = np.asarray(matrix, np.float64)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    with np.errstate(all="ignore"):
        columns, rows, depth = (row[0] * x + (row[1] * y + row[2]) for row in m)
        return rows / depth, columns / depth


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """Every compiled way to compute it here, fastest first: name → function of (picture, **options)."""
    return {f"cpp-{isa}": partial(sample, isa=isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make()` gives (picture, options) of sample. beyond: how many of the picture's sizes the places lie
    outside at most."""

    name: str
    shape: tuple[int, int, int]
    size: tuple[int, int]
    border: str = "edge"
    beyond: float = 0.5

    def make(self) -> tuple[np.ndarray, dict[str, Any]]:
        rng = np.random.Generator(np.random.PCG64([*self.shape, *self.size]))
        picture = rng.integers(0, 256, self.shape, np.uint8)
        low, high = -self.beyond, 1 + self.beyond
        rows, columns = ((rng.uniform(low, high, self.size) * side).astype(np.float32) for side in self.shape[:2])
        return picture, {"rows": rows, "columns": columns, "border": self.border, "fill": 77}


BENCHMARK_CASES = (
    Case("224", (224, 224, 3), (224, 224)),
    Case("224-reflect", (224, 224, 3), (224, 224), "reflect"),
    Case("224-grey", (224, 224, 1), (224, 224)),
    Case("480x640", (480, 640, 3), (480, 640)),
)


def cases() -> Iterator[Case]:
    """Widths around every vector and every run of places, single pixels, needles, places far outside."""
    for border in BORDERS:
        for c in CHANNELS:
            for w in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 255, 256, 257, 263, 515):
                yield Case(f"to-w{w}-{c}-{border}", (9, 11, c), (3, w), border)
            for side in (1, 2, 3, 5, 6):
                yield Case(f"from-h{side}-{c}-{border}", (side, 9, c), (20, 21), border)
                yield Case(f"from-w{side}-{c}-{border}", (9, side, c), (20, 21), border)
            yield Case(f"pixel-{c}-{border}", (1, 1, c), (7, 9), border, 3.0)
            yield Case(f"needle-{c}-{border}", (2, 3000, c), (40, 50), border)
            yield Case(f"far-{c}-{border}", (30, 20, c), (40, 50), border, 20.0)
            yield Case(f"none-{c}-{border}", (5, 4, c), (0, 6), border)
            yield Case(f"large-{c}-{border}", (224, 224, c), (224, 224), border)


def cost(case: Case) -> tuple[int, int]:
    """(bytes, flops): the picture and two float32 places a pixel read, every output written once; three weighted means
    of two a value, a multiplication and an addition counting as two."""
    pixels, channels = case.size[0] * case.size[1], case.shape[2]
    return int(np.prod(case.shape)) + pixels * (8 + channels), 9 * pixels * channels
