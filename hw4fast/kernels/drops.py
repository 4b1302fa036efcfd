"""What drops and flakes are made of: where a field exceeds a threshold, and how light falls on drops there.

`above`: value · scale + offset where that isn't less than the threshold, 0 elsewhere, clipped to 0 … 1, as bytes. The
field may be enlarged bilinearly on the way. In float32 whose products and sums are never fused.

`drops`, ImageNet-C's water: edges of the drops (J. Canny, 1986: Sobel's gradients, |x| + |y| of which are greatest in
their own direction and above 150, or above 50 and joined to such), the distance of each pixel to the nearest one (steps
of 1, 1.4 aslant and 2.1969 as a knight moves; at most 20), its mean over 3 × 3 rounded down, the histogram of these 21
levels equalised, what they rise by towards the lower right, its mean over 3 × 3 times the drop's thickness, scaled so
that the greatest is 1. Borders are OpenCV's: gradients repeat the end pixels, means mirror about them. In integers but
for the end. Both are the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from hw4fast.kernels import compiled, isas

ROUNDINGS = ("down", "nearest")  # as a cast to uint8 does; halves up
WEAK, STRONG = 50, 150  # gradients
FARTHEST = 20.0
STEPS = {(0, 1): 1.0, (1, 1): 1434 / 1024, (1, 2): 2250 / 1024}  # lengths in 1/1024


def above(
    field: np.ndarray,
    threshold: float,
    scale: float = 1.0,
    offset: float = 0.0,
    rounding: str = "down",
    size: tuple[int, int] | None = None,
    steps: tuple[float, float] = (1.0, 1.0),
    isa: str = "",
) -> np.ndarray:
    """float32 [rows, columns] → uint8 [h, w], `size` or as large as the field; NaN counts as below.

    steps: how far a row and a column of the result lie from the next in the field, in 0 … 1; beyond its end, its end.
    Raises TypeError for a wrong dtype, ValueError for the rest.
    """
    if field.dtype != np.float32:
        raise TypeError(f"a field must be float32, not {field.dtype}")
    if field.ndim != 2:
        raise ValueError(f"a field must be [h, w], not {list(field.shape)}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {ROUNDINGS}, not {rounding!r}")
    source = np.ascontiguousarray(field)
    height, width = field.shape if size is None else size
    if min(height, width) < 0:
        raise ValueError(f"size must not be negative, but is {size}")
    output = np.empty((height, width), np.uint8)
    places = source.ctypes.data, source.shape, output.ctypes.data, output.shape, steps
    compiled().above(*places, scale, offset, threshold, rounding == "nearest", isa)
    return output


def above_reference(
    field: np.ndarray,
    threshold: float,
    scale: float = 1.0,
    offset: float = 0.0,
    size: tuple[int, int] | None = None,
    steps: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """float64 in 0 … 255, not rounded."""
    values = field.astype(np.float64)
    for axis, (n, step) in enumerate(zip(size or field.shape, steps, strict=True)):
        at = np.arange(n) * step
        below = np.minimum(at.astype(np.int64), field.shape[axis] - 1)
        share = np.expand_dims(at - below, 1 - axis)
        far = values.take(np.minimum(below + 1, field.shape[axis] - 1), axis)
        values = values.take(below, axis) * (1 - share) + far * share
    values = values * scale + offset
    return 255 * np.clip(np.where(values >= threshold, values, 0), 0, 1)


def drops(grey: np.ndarray, isa: str = "") -> np.ndarray:
    """How thick drops are, uint8 [h, w] → how bright they shine, float32 [h, w] in 0 … 1; all 0 if nowhere.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape.
    """
    _check(grey)
    source = np.ascontiguousarray(grey)
    output = np.empty(grey.shape, np.float32)
    compiled().drops(source.ctypes.data, output.ctypes.data, source.shape, isa)
    return output


def _check(grey: np.ndarray) -> None:
    if grey.dtype != np.uint8:
        raise TypeError(f"drops must be uint8, not {grey.dtype}")
    if grey.ndim != 2:
        raise ValueError(f"drops must be [h, w], not {list(grey.shape)}")


def drops_reference(grey: np.ndarray) -> np.ndarray:
    """float64, by whole arrays."""
    _check(grey)
    if not grey.size:
        return np.zeros(grey.shape)
    levels = np.floor(_mean(_distance(_edges(grey))) + 1e-9).astype(np.int64)  # 1024 is a power of two: exact
    counts = np.bincount(levels.ravel(), minlength=256)
    first = int(levels.min())
    if counts[first] < levels.size:
        share = np.float32(255) / np.float32(levels.size - counts[first])
        levels = np.rint(np.cumsum(np.r_[0, counts[1 + first :]]).astype(np.float32) * share)[levels - first]
    slope = sum(
        weight * _moved(levels.astype(np.float64), row, column, "reflect")
        for weight, row, column in ((-2, -1, -1), (-1, -1, 0), (-1, 0, -1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))
    )
    bright = np.rint(_mean(np.clip(slope, 0, 255))) * grey
    return bright / max(bright.max(), 1)


def _moved(plane: np.ndarray, row: int, column: int, border: str) -> np.ndarray:
    """What lies there of each pixel; border: a mode of np.pad."""
    h, w = plane.shape
    for axis, n in enumerate((h, w)):
        margin = [(int(a == axis),) * 2 for a in (0, 1)]
        plane = np.pad(plane, margin, "edge" if n == 1 and border == "reflect" else border)  # type: ignore[call-overload]
    return plane[1 + row : 1 + row + h, 1 + column : 1 + column + w]


def _mean(plane: np.ndarray) -> np.ndarray:
    near = [_moved(plane, row, column, "reflect") for row in (-1, 0, 1) for column in (-1, 0, 1)]
    return np.sum(near, axis=0) / 9


def _edges(grey: np.ndarray) -> np.ndarray:
    """bool [h, w]"""
    at = {(y, x): _moved(grey.astype(np.int64), y, x, "edge") for y in (-1, 0, 1) for x in (-1, 0, 1)}
    across = sum(n * (at[y, 1] - at[y, -1]) for y, n in ((-1, 1), (0, 2), (1, 1)))
    down = sum(n * (at[1, x] - at[-1, x]) for x, n in ((-1, 1), (0, 2), (1, 1)))
    amount = np.abs(across) + np.abs(down)
    slope = np.abs(down) * 2**15
    flat, steep = slope < np.abs(across) * 13573, slope > np.abs(across) * (13573 + 2**16)  # tan of 22.5° and 67.5°
    rising = (across ^ down) < 0
    beside = {(y, x): _moved(amount, y, x, "constant") for y in (-1, 0, 1) for x in (-1, 0, 1)}
    sides = [
        np.where(
            flat,
            beside[0, side],
            np.where(steep, beside[side, 0], np.where(rising, beside[side, -side], beside[side, side])),
        )
        for side in (-1, 1)
    ]
    greatest = (amount > sides[0]) & np.where(flat | steep, amount >= sides[1], amount > sides[1])
    weak, edges = greatest & (amount > WEAK), greatest & (amount > STRONG)
    while True:
        near = [_moved(edges, row, column, "constant") for row in (-1, 0, 1) for column in (-1, 0, 1)]
        grown = weak & np.any(near, axis=0)
        if np.array_equal(grown, edges):
            return edges
        edges = grown


def _distance(edges: np.ndarray) -> np.ndarray:
    distance = np.where(edges, 0.0, FARTHEST)
    h, w = edges.shape
    moves = {(a * y, b * x): far for (y, x), far in STEPS.items() for a in (-1, 1) for b in (-1, 1)}
    moves |= {(x, y): far for (y, x), far in moves.items()}
    while True:
        padded = np.pad(distance, 2, constant_values=FARTHEST)
        there = [padded[2 + y : 2 + y + h, 2 + x : 2 + x + w] + far for (y, x), far in moves.items()]
        nearer = np.minimum(distance, np.min(there, axis=0))
        if np.array_equal(nearer, distance):
            return distance
        distance = nearer


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """Every compiled way to compute it here, fastest first: name → function of (grey) that lights drops."""
    return {f"cpp-{isa}": partial(drops, isa=isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make()` gives (grey,). size: pixels of a drop."""

    name: str
    shape: tuple[int, int]
    size: int

    def make(self) -> tuple[np.ndarray]:
        rng = np.random.Generator(np.random.PCG64([*self.shape, self.size]))
        coarse = rng.normal(0.6, 0.3, [-(-n // self.size) for n in self.shape]).repeat(self.size, 0)
        field = coarse.repeat(self.size, 1)[: self.shape[0], : self.shape[1]].astype(np.float32)
        field += 0.1 * rng.random(self.shape, np.float32)
        return (above(field, 0.68),)


BENCHMARK_CASES = (Case("224", (224, 224), 5),)


def cases() -> Iterator[Case]:
    """Sides around every vector, single pixels, lines, drops of one pixel and drops that are far apart."""
    for w in (1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 131):
        yield Case(f"w{w}", (19, w), 3)
        yield Case(f"h{w}", (w, 19), 3)
    for size in (1, 2, 50):
        yield Case(f"size{size}", (97, 103), size)
    yield Case("pixel", (1, 1), 1)
    yield Case("line", (1, 300), 4)
    yield Case("column", (300, 1), 4)


def cost(case: Case) -> tuple[int, int]:
    """(bytes, operations): a byte read and a float written per pixel; some 100 operations."""
    pixels = int(np.prod(case.shape))
    return 5 * pixels, 100 * pixels
