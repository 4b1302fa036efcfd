"""Resizing as Pillow does it, byte for byte, of only those pixels that are wanted: the way of a picture to its net.

An output pixel is a weighted mean of the pixels around its place in the input. The weight is the filter's value at
their distance, the filter being stretched when the picture shrinks, so that every input pixel counts (antialiasing):
with scale s = in / out, centre (i + ½) s and stretch f = max(s, 1), pixel k weighs filter((k + ½ − centre) / f) over
the sum of these. As in Pillow (Resample.c, by A. Karpinskiy): weights are rounded to 22 bits of a fraction, one pass
goes across and one down, and each rounds to bytes. Down comes first when the picture gets lower, by more than twice
of what it gets narrower (Pillow does so since version 13).

filters: "box", −½ < x ≤ ½: 1 (which enlarges by the nearest pixel); "bilinear", |x| < 1: 1 − |x|; "bicubic", R. Keys
1981 with a = −½; "lanczos", sinc(x) sinc(x / 3) for |x| < 3.
Time and memory: see `cost`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from hw4fast.kernels import compiled, isas, threads_by_default
from hw4fast.kernels.numba_variants import compiled_by_numba, set_threads

BITS = 22  # of a weight's fraction
CHANNELS = (1, 3)
Box = tuple[int, int, int, int]  # top, left, height, width of what is wanted of the whole result


def _box(x: np.ndarray) -> np.ndarray:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _bicubic(x: np.ndarray) -> np.ndarray:
    a, x = -0.5, np.abs(x)
    near, far = ((a + 2.0) * x - (a + 3.0)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where((x >= -3.0) & (x < 3.0), np.sinc(x) * np.sinc(x / 3), 0.0)


FILTERS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {  # how far it reaches, its value
    "box": (0.5, _box),
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}


def resize(
    picture: np.ndarray,
    size: tuple[int, int],
    box: Box | None = None,
    interpolation: str = "bilinear",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    isa: str = "",
    threads: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A resized copy of a picture, uint8 [h, w, 1 or 3], or the part of it in `box`.

    size: (height, width) of the whole result. box: (top, left, height, width) of what is wanted of it; all if None.
    → uint8 [height, width, channels], Pillow's very bytes; with mean and std, a value per channel, float32
    [channels, height, width]: (byte / 255 − mean) / std, in that order, each step rounded to float32.
    out: what the result is written to, of that shape and dtype, C-contiguous; a new array if None.
    isa: an instruction set of `hw4fast.kernels.isas()`; empty for HW4FAST_ISA or the best.
    threads: 0 for HW4FAST_THREADS or all cores; the result does not depend on it.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape, size, box, filter, mean, std, out or `isa`.
    """
    height, width, box = _checked(picture, size, box, interpolation)
    means, stds = normalisation(mean, std, picture.shape[2])
    h, w, c = picture.shape
    rows_are_whole = picture.strides[2] == 1 and picture.strides[1] == c
    source = picture if rows_are_whole else np.ascontiguousarray(picture)
    output = _output(out, (c, box[2], box[3]) if means else (box[2], box[3], c), np.float32 if means else np.uint8)
    compiled().resize(
        source.ctypes.data,
        (h, w, c),
        source.strides[0],
        (height, width),
        box,
        interpolation,
        output.ctypes.data,
        means,
        stds,
        isa,
        threads or threads_by_default() or 0,
    )
    return output


def _checked(picture: np.ndarray, size: Any, box: Any, interpolation: str) -> tuple[int, int, Box]:
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    return checked(picture.shape, size, box, interpolation)


def checked(shape: Sequence[int], size: Any, box: Any, interpolation: str) -> tuple[int, int, Box]:
    """Height, width and box of what is wanted of a picture of that shape; ValueError where it can't be."""
    if len(shape) != 3 or shape[2] not in CHANNELS or 0 in shape:
        raise ValueError(f"a picture must be [h, w, 1 or 3] with pixels, not {list(shape)}")
    if interpolation not in FILTERS:
        raise ValueError(f"interpolation must be one of {list(FILTERS)}, not {interpolation!r}")
    height, width = (operator.index(side) for side in size)
    if min(height, width) < 1:
        raise ValueError(f"size (height, width) {tuple(size)} must have pixels")
    top, left, rows, columns = (operator.index(side) for side in box or (0, 0, height, width))
    if min(rows, columns) < 1 or min(top, left) < 0 or top + rows > height or left + columns > width:
        raise ValueError(f"box (top, left, height, width) {box} must have pixels and lie within size {size}")
    return height, width, (top, left, rows, columns)


def _output(out: np.ndarray | None, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if out is None:
        return np.empty(shape, dtype)
    if out.dtype != dtype:
        raise TypeError(f"out must be {np.dtype(dtype)}, not {out.dtype}")
    if out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out must be {list(shape)}, contiguous and writeable, not {list(out.shape)}")
    return out


def normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[list[float], list[float]]:
    """Both as lists, empty for None; ValueError where they aren't a value per channel."""
    if mean is None and std is None:
        return [], []
    if mean is None or std is None or not len(mean) == len(std) == channels:
        raise ValueError(f"mean and std must have {channels} values each")
    return [float(value) for value in mean], [float(value) for value in std]


def weights(length: int, size: int, begin: int, count: int, interpolation: str) -> Iterator[tuple[int, np.ndarray]]:
    """For outputs begin … begin + count − 1 of `size` made of `length`: the first input, and its and the following
    ones' weights, float64 that sum to 1."""
    reach, value = FILTERS[interpolation]
    scale = length / size
    stretch = max(scale, 1.0)
    for i in range(begin, begin + count):
        centre = (i + 0.5) * scale
        first = max(int(centre - reach * stretch + 0.5), 0)
        last = min(int(centre + reach * stretch + 0.5), length)
        found = value((np.arange(first, last) - centre + 0.5) * (1.0 / stretch))
        total = math.fsum(found)
        yield first, found / total if total else found


def reference(
    picture: np.ndarray, size: tuple[int, int], box: Box | None = None, interpolation: str = "bilinear"
) -> np.ndarray:
    """In float64 and not rounded, neither after a pass nor to 0…255: slow and obvious."""
    height, width, (top, left, rows, columns) = _checked(picture, size, box, interpolation)
    across = _along(picture.astype(np.float64), 1, weights(picture.shape[1], width, left, columns, interpolation))
    return _along(across, 0, weights(picture.shape[0], height, top, rows, interpolation))


def _along(picture: np.ndarray, axis: int, taps: Iterator[tuple[int, np.ndarray]]) -> np.ndarray:
    lines = np.moveaxis(picture, axis, 0)
    return np.moveaxis(np.stack([np.tensordot(w, lines[first : first + len(w)], 1) for first, w in taps]), 0, axis)


def down_first(h: int, w: int, height: int, width: int) -> bool:
    """Whether the pass down comes before the one across."""
    return height < h and h - height > 2 * (w - width)


def resize_numba(
    picture: np.ndarray, size: tuple[int, int], box: Box | None = None, interpolation: str = "bilinear"
) -> np.ndarray:
    """uint8 → uint8 as `resize`, byte for byte: what twenty lines of Python reach. Raises as `resize` does."""
    height, width, (top, left, rows, columns) = _checked(picture, size, box, interpolation)
    h, w, c = picture.shape
    passes = [
        (1, fixed(w, width, left, columns, interpolation)),
        (0, fixed(h, height, top, rows, interpolation)),
    ]
    set_threads()
    picture = np.ascontiguousarray(picture)
    for axis, taps in reversed(passes) if down_first(h, w, height, width) else passes:
        shape = list(picture.shape)
        lines, shape[axis] = shape[axis], len(taps[0])
        result = np.empty(shape, np.uint8)
        outer, inner = (shape[0], c) if axis == 1 else (1, shape[1] * c)
        run = compiled_by_numba(_pass)
        run(picture.reshape(outer, lines, inner), *taps, result.reshape(outer, shape[axis], inner))
        picture = result
    return picture


@lru_cache(64)
def fixed(*line: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `weights` of a line: (first input, their number, themselves [outputs, most], of 22 bits each)."""
    found = list(weights(*line))
    fixed = np.zeros((len(found), max(len(w) for _, w in found)), np.int32)
    for row, (_, w) in zip(fixed, found, strict=True):
        row[: len(w)] = np.trunc(w * 2**BITS + np.where(w < 0, -0.5, 0.5))
    return np.array([first for first, _ in found]), np.array([len(w) for _, w in found]), fixed


def _pass(prange: Any) -> Callable[..., None]:
    half, bits = np.int32(1 << (BITS - 1)), np.int32(BITS)

    def one_pass(image: Any, first: Any, count: Any, fixed: Any, result: Any) -> None:
        outer, size, inner = result.shape
        for task in prange(outer * size):  # numba shares out one axis: all outputs, counted through
            row, i = task // size, task % size
            sums = np.full(inner, half, np.int32)
            for k in range(count[i]):
                weight, line = fixed[i, k], image[row, first[i] + k]
                for j in range(inner):
                    sums[j] += weight * np.int32(line[j])
            for j in range(inner):
                result[row, i, j] = min(max(sums[j] >> bits, 0), 255)

    return one_pass


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """Every compiled way to compute it here, fastest first: name → function of (picture, **options)."""
    return {f"cpp-{isa}": partial(resize, isa=isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make()` gives (picture, options) of resize."""

    name: str
    shape: tuple[int, int, int]
    size: tuple[int, int]
    box: Box | None = None
    interpolation: str = "bilinear"

    def make(self) -> tuple[np.ndarray, dict[str, Any]]:
        rng = np.random.Generator(np.random.PCG64([*self.shape, *self.size]))
        picture = rng.integers(0, 256, self.shape, np.uint8)
        return picture, {"size": self.size, "box": self.box, "interpolation": self.interpolation}


BENCHMARK_CASES = (
    Case("imagenet-375x500", (375, 500, 3), (256, 341), (16, 58, 224, 224)),
    Case("imagenet-500x375", (500, 375, 3), (341, 256), (58, 16, 224, 224)),
    Case("imagenet-375x500-bicubic", (375, 500, 3), (256, 341), (16, 58, 224, 224), "bicubic"),
    Case("stretch-375x500", (375, 500, 3), (224, 224)),
    Case("imagenet-3000x4000", (3000, 4000, 3), (256, 341), (16, 58, 224, 224)),
    Case("digit-28-224", (28, 28, 1), (224, 224)),
)


def cases() -> Iterator[Case]:
    """Widths around every vector, up and down, single pixels, needles, boxes, both orders of the passes."""
    for interpolation in FILTERS:
        for c in CHANNELS:

            def case(
                name: str,
                h: int,
                w: int,
                size: tuple[int, int],
                box: Box | None = None,
                c: int = c,
                interpolation: str = interpolation,
            ) -> Case:
                return Case(f"{name}-{c}-{interpolation}", (h, w, c), size, box, interpolation)

            for w in (1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 47, 63, 64, 65, 129):
                yield case(f"to-w{w}", 9, 40, (7, w))
                yield case(f"from-w{w}", 20, w, (21, 18))
                yield case(f"lower-from-w{w}", 50, w, (11, 18))
            for h in (1, 2, 15, 16, 17, 33):
                yield case(f"to-h{h}", 30, 20, (h, 10))
                yield case(f"from-h{h}", h, 20, (18, 10))
            yield case("same", 20, 30, (20, 30))
            yield case("pixel", 1, 1, (1, 1))
            yield case("grown-pixel", 1, 1, (40, 50))
            yield case("to-a-pixel", 300, 400, (1, 1))
            yield case("needle", 2, 5000, (100, 3))
            yield case("upright-needle", 5000, 2, (3, 100))
            yield case("box", 60, 80, (50, 70), (7, 11, 30, 41))
            yield case("box-of-a-pixel", 60, 80, (50, 70), (49, 69, 1, 1))
            yield case("box-lower", 200, 40, (50, 60), (7, 11, 30, 41))
            yield case("wide", 3, 9000, (3, 4000))
        yield Case(f"cache-{interpolation}", (2, 30000, 3), (2, 7), None, interpolation)


def cost(case: Case) -> tuple[int, int]:
    """(bytes, flops): what is needed of the picture read once, every output written once; a multiplication and an
    addition count as two, in Pillow's order of the passes."""
    (h, w, c), (height, width) = case.shape, case.size
    top, left, rows, columns = case.box or (0, 0, height, width)
    down = list(weights(h, height, top, rows, case.interpolation))
    across = list(weights(w, width, left, columns, case.interpolation))
    lines, pixels = (taps[-1][0] + len(taps[-1][1]) - taps[0][0] for taps in (down, across))
    per_down, per_across = sum(len(x) for _, x in down), sum(len(x) for _, x in across)
    if down_first(h, w, height, width):
        products = per_down * pixels + per_across * rows
    else:
        products = per_across * lines + per_down * columns
    return c * (lines * pixels + rows * columns), 2 * c * products
