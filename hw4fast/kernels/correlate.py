"""Correlation of a picture with a few taps anywhere: the blurs that don't separate (a disk, a streak).

output(y, x) = Σ weight[i] · input(y + rows[i], x + columns[i]), in fixed point: weights are rounded to 14 or 15 bits
of a fraction such that their sum stays what it was, products and sums are exact, and the sum is rounded once. So it is
within 1 grey level of the exact value (rounded the same way), and the same bytes on every machine. Where many weights
are equal they stay so: taps that are the same on both sides take half the time or less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from hw4fast.kernels import compiled, isas

BORDERS = ("mirror", "edge")  # about the end pixel (OpenCV's BORDER_REFLECT_101); the end pixel itself
ROUNDINGS = ("nearest", "down")  # halves up; as a cast to uint8 does
FARTHEST = 4096  # pixels of a tap


def correlate(
    picture: np.ndarray,
    rows: Sequence[int] | np.ndarray,
    columns: Sequence[int] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    border: str = "mirror",
    rounding: str = "nearest",
    isa: str = "",
) -> np.ndarray:
    """uint8 [h, w, c] with c in 1 … 4 → the same shape.

    rows, columns: pixels from the output to the input of each tap, at most FARTHEST either way. weights: from 0 on,
    with a sum of at most 1. On one thread. Raises TypeError for a wrong dtype, ValueError for the rest.
    """
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    if picture.ndim != 3 or not 1 <= picture.shape[2] <= 4:
        raise ValueError(f"a picture must be [h, w, 1 … 4], not {list(picture.shape)}")
    if border not in BORDERS or rounding not in ROUNDINGS:
        raise ValueError(f"border must be one of {BORDERS} and rounding one of {ROUNDINGS}")
    lists = [np.asarray(a, t) for a, t in ((rows, np.int64), (columns, np.int64), (weights, np.float64))]
    if any(a.ndim != 1 for a in lists):
        raise ValueError("rows, columns and weights must be lists")
    taps = _taps(*(a.tobytes() for a in lists))
    h, w, c = picture.shape
    whole = picture.strides[2] == 1 and picture.strides[1] == c
    source = picture if whole else np.ascontiguousarray(picture)
    output = np.empty(picture.shape, np.uint8)
    compiled().correlate(
        source.ctypes.data,
        source.strides[0],
        output.ctypes.data,
        (h, w, c),
        *taps,
        border == "mirror",
        rounding == "nearest",
        isa,
    )
    return output


@lru_cache(64)
def _taps(rows: bytes, columns: bytes, weights: bytes) -> tuple[list[int], list[int], list[int], int]:
    """Rows, columns, weights and their unit, for the kernel: pictures that follow one another are blurred alike."""
    fixed, unit = in_fixed_point(np.frombuffer(weights, np.float64))
    return np.frombuffer(rows, np.int64).tolist(), np.frombuffer(columns, np.int64).tolist(), fixed.tolist(), unit


def in_fixed_point(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """int64 [n] in units of 2^−unit, and unit. What rounding takes from the sum, the largest remainders get back."""
    if weights.ndim != 1 or not len(weights) or not np.isfinite(weights).all():
        raise ValueError("weights must be a list of finite numbers")
    total = weights.sum()
    if weights.min() < 0 or total > 1 + 1e-6:
        raise ValueError(f"weights must not be negative, nor their sum more than 1; it is {total}")
    unit = 15 if weights.max() < 0.999 else 14
    exact = weights * 2**unit
    wanted = int(np.rint(min(total, 1.0) * 2**unit))
    fixed = _evenly(exact, wanted)
    if fixed is None:
        fixed = np.floor(exact).astype(np.int64)
        lacking = min(wanted - int(fixed.sum()), len(weights))
        fixed[np.argsort(fixed - exact, kind="stable")[:lacking]] += 1
    return fixed, unit


def _evenly(exact: np.ndarray, wanted: int) -> np.ndarray | None:
    """Rounded, equal numbers alike, to a sum of `wanted` but for up to 16 units, which go to the one in the middle of
    the greatest: what is the same on both sides stays so. None if it would be many, or if few are equal."""
    rounded = np.rint(exact * 2**10)
    if 2 * len(set(rounded.tolist())) > len(rounded):
        return None
    values, which, count = np.unique(rounded, return_inverse=True, return_counts=True)
    values /= 2**10
    fixed = np.floor(values).astype(np.int64)
    lacking = wanted - int(fixed @ count)
    for group in np.argsort(fixed - values, kind="stable"):
        if abs(lacking - count[group]) < abs(lacking):
            fixed[group] += 1
            lacking -= int(count[group])
    greatest = np.flatnonzero(which == len(values) - 1)
    result = fixed[which]
    result[greatest[len(greatest) // 2]] += lacking
    return result if abs(lacking) <= 16 and result.min() >= 0 else None


def correlate_reference(
    picture: np.ndarray, rows: Any, columns: Any, weights: Any, border: str = "mirror"
) -> np.ndarray:
    """float64 [h, w, c], not rounded."""
    h, w, _ = picture.shape
    total = np.zeros(picture.shape)
    for row, column, weight in zip(rows, columns, weights, strict=True):
        at = [np.arange(n) + int(by) for n, by in ((h, row), (w, column))]
        if border == "edge":
            places = [np.clip(i, 0, n - 1) for i, n in zip(at, (h, w), strict=True)]
        else:
            periods = [max(2 * (n - 1), 1) for n in (h, w)]
            places = [np.minimum(i % p, p - i % p) for i, p in zip(at, periods, strict=True)]
        total += weight * picture[np.ix_(*places)]
    return total


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """Every compiled way to compute it here, fastest first: name → function of (picture, rows, columns, weights)."""
    return {f"cpp-{isa}": partial(correlate, isa=isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make()` gives (picture, rows, columns, weights). reach: pixels; taps: how many."""

    name: str
    shape: tuple[int, int, int]
    reach: int
    taps: int

    def make(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.Generator(np.random.PCG64([*self.shape, self.reach, self.taps]))
        weights = rng.random(self.taps)
        rows, columns = rng.integers(-self.reach, self.reach + 1, (2, self.taps))
        return rng.integers(0, 256, self.shape, np.uint8), rows, columns, weights / weights.sum()


BENCHMARK_CASES = (Case("150-taps-224", (224, 224, 3), 8, 150), Case("31-taps-224", (224, 224, 3), 15, 31))


def cases() -> Iterator[Case]:
    """Widths around every vector, taps beyond the picture, one tap, a place named twice."""
    for w in (1, 2, 3, 5, 15, 16, 17, 42, 43, 127, 128, 129):
        yield Case(f"w{w}", (5, w, 3), 3, 9)
    for h in (1, 2, 7, 64):
        yield Case(f"h{h}", (h, 6, 1), 40, 50)
    for taps in (1, 2, 400):
        yield Case(f"taps{taps}", (13, 11, 3), 4, taps)
    yield Case("four-channels", (9, 9, 4), 2, 5)


def cost(case: Case) -> tuple[int, int]:
    """(bytes, operations): every value read and written once; a product and a sum per tap and value."""
    values = int(np.prod(case.shape))
    return 2 * values, 2 * values * case.taps
