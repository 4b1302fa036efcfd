"""Correlation of a picture with a few taps anywhere: the blurs that don't separate (a disk, a streak).

output(y, x) = Σ weight[i] · input(y + rows[i], x + columns[i]), in fixed point: weights are rounded to 14 or 15 bits
of a fraction such that their sum stays what it was, products and sums are exact, and the sum is rounded once. So it is
within 1 grey level of the exact value (rounded the same way), and the same bytes on every machine. Where many weights
are equal they stay so: taps that are the same on both sides take half the time or less.

Of very many taps (a disk of a radius from some 15 pixels on) each weighs too little for 15 bits. These sums are made by
Fourier transforms, of weights of up to 30 bits: so many that the transforms' errors stay below a half of the unit, and
rounding gives the exact sum, whatever machine and library computed it.
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
MANY = 4096  # taps: of more, 15 bits are too coarse in any case
LONG = 1024  # pixels of a block that is transformed at once, at least


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
    with a sum of at most 1. isa: that variant of the compiled kernel, even where its weights are too coarse to be
    within 1 grey level. On one thread. Raises TypeError for a wrong dtype, ValueError for the rest.
    """
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    if picture.ndim != 3 or not 1 <= picture.shape[2] <= 4:
        raise ValueError(f"a picture must be [h, w, 1 … 4], not {list(picture.shape)}")
    if border not in BORDERS or rounding not in ROUNDINGS:
        raise ValueError(f"border must be one of {BORDERS} and rounding one of {ROUNDINGS}")
    down, across, shares = np.asarray(rows, np.int64), np.asarray(columns, np.int64), np.asarray(weights, np.float64)
    if any(a.ndim != 1 for a in (down, across, shares)):
        raise ValueError("rows, columns and weights must be lists")
    few = len(shares) <= MANY
    taps = _taps(down.tobytes(), across.tobytes(), shares.tobytes()) if isa or few else None
    if taps is None or (taps[-1] and not isa):
        return _by_fourier(picture, down, across, shares, border, rounding)
    h, w, c = picture.shape
    whole = picture.strides[2] == 1 and picture.strides[1] == c
    source = picture if whole else np.ascontiguousarray(picture)
    output = np.empty(picture.shape, np.uint8)
    compiled().correlate(
        source.ctypes.data,
        source.strides[0],
        output.ctypes.data,
        (h, w, c),
        *taps[:-1],
        border == "mirror",
        rounding == "nearest",
        isa,
    )
    return output


@lru_cache(64)
def _taps(rows: bytes, columns: bytes, weights: bytes) -> tuple[list[int], list[int], list[int], int, bool]:
    """Rows, columns, weights and their unit, for the kernel, and whether the weights are too coarse: pictures that
    follow one another are blurred alike."""
    fixed, unit, coarse = _fixed(weights)
    places = np.frombuffer(rows, np.int64).tolist(), np.frombuffer(columns, np.int64).tolist()
    return *places, fixed.tolist(), unit, coarse


@lru_cache(64)  # streaks of one length have the same ones, whatever their direction
def _fixed(weights: bytes) -> tuple[np.ndarray, int, bool]:
    """In fixed point, the unit, and whether that is too coarse."""
    exact = np.frombuffer(weights, np.float64)
    fixed, unit = in_fixed_point(exact)
    fixed.flags.writeable = False  # others get it, too
    return fixed, unit, bool(255 / 2 * np.abs(fixed / 2**unit - exact).sum() > 0.5)  # grey levels, at worst


def in_fixed_point(weights: np.ndarray, unit: int | None = None) -> tuple[np.ndarray, int]:
    """int64 [n] in units of 2^−unit, and unit. What rounding takes from the sum, the largest remainders get back."""
    if weights.ndim != 1 or not len(weights) or not np.isfinite(weights).all():
        raise ValueError("weights must be a list of finite numbers")
    total = weights.sum()
    if weights.min() < 0 or total > 1 + 1e-6:
        raise ValueError(f"weights must not be negative, nor their sum more than 1; it is {total}")
    if unit is None:
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


def _by_fourier(
    picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, border: str, rounding: str
) -> np.ndarray:
    """Blocks of the output, a channel at a time."""
    _check_taps(rows, columns, weights)
    output = np.empty(picture.shape, np.uint8)
    if not output.size:
        return output
    fixed, unit = fixed_taps(picture.shape, rows, columns, weights)
    ends, blocks, sizes = _pieces(picture.shape, rows, columns)
    taps = np.zeros(sizes)
    np.add.at(taps, (rows + ends[0][0], columns + ends[1][0]), fixed)
    spectrum = np.conj(np.fft.rfft2(taps))
    half = 2 ** (unit - 1) if rounding == "nearest" else 0
    for top, bottom in blocks[0]:
        down = _places(top - ends[0][0], bottom + ends[0][1], picture.shape[0], border)
        for left, right in blocks[1]:
            across = _places(left - ends[1][0], right + ends[1][1], picture.shape[1], border)
            for channel in range(picture.shape[2]):
                part = np.fft.rfft2(picture[down[:, None], across, channel], sizes)
                sums = np.fft.irfft2(np.multiply(part, spectrum, out=part), sizes)[: bottom - top, : right - left]
                output[top:bottom, left:right, channel] = (np.rint(sums) + half) // 2**unit
    return output


def _pieces(
    shape: Sequence[int], rows: np.ndarray, columns: np.ndarray
) -> tuple[list[tuple[int, int]], list[list[tuple[int, int]]], list[int]]:
    """Of both directions: how far the taps reach, the blocks of the output, and what is transformed at once."""
    ends = [(max(0, -int(at.min())), max(0, int(at.max()))) for at in (rows, columns)]
    blocks = [_blocks(n, sum(reach)) for n, reach in zip(shape, ends, strict=False)]
    return ends, blocks, [_fast(block[0][1] + sum(reach)) for block, reach in zip(blocks, ends, strict=True)]


def _check_taps(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> None:
    if not len(rows) == len(columns) == len(weights):
        raise ValueError("correlate: rows, columns and weights must be as many")
    if len(rows) and max(map(abs, map(int, (rows.min(), rows.max(), columns.min(), columns.max())))) > FARTHEST:
        raise ValueError("correlate: a tap is too far away")


def fixed_taps(
    shape: Sequence[int], rows: np.ndarray, columns: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, int]:
    """The weights with which `correlate` sums up a picture of that height and width, as integers, and the bits of their
    unit: sums of them are its own, in whatever order. rows, columns: int64, weights: float64, as many. Raises
    ValueError as it does."""
    _check_taps(rows, columns, weights)
    if len(weights) <= MANY:
        fixed, unit, coarse = _fixed(weights.tobytes())
        if not coarse:
            return fixed, unit
    return _finely(tuple(shape[:2]), rows.tobytes(), columns.tobytes(), weights.tobytes())


@lru_cache(16)
def _finely(shape: tuple[int, ...], rows: bytes, columns: bytes, weights: bytes) -> tuple[np.ndarray, int]:
    """In as fine a fixed point as the transforms take."""
    exact, *places = np.frombuffer(weights, np.float64), *(np.frombuffer(line, np.int64) for line in (rows, columns))
    fixed, unit = in_fixed_point(exact, _unit(exact, _pieces(shape, *places)[2]))
    fixed.flags.writeable = False
    return fixed, unit


def _unit(weights: np.ndarray, sizes: Sequence[int]) -> int:
    """Bits of the weights: the error of three transforms, some eps · log2(n) of the norms, stays below 1/8."""
    if not np.isfinite(weights).all():
        raise ValueError("weights must be a list of finite numbers")
    n = float(np.prod(sizes))
    error = 4 * np.finfo(np.float64).eps * np.log2(n) * np.sqrt(n) * 255 * np.linalg.norm(weights)
    return min(30, int(np.floor(-np.log2(8 * error))))


def _blocks(n: int, reach: int) -> list[tuple[int, int]]:
    """(begin, end) of equal parts of a line, the last of which may be shorter: as long as the reach or LONG."""
    count = -(-n // max(LONG, reach))
    size = -(-n // max(count, 1))
    return [(begin, min(begin + size, n)) for begin in range(0, n, max(size, 1))]


def _fast(n: int) -> int:
    """The least product of 2, 3 and 5 from n on: transforms of such lengths are fast."""
    powers = [3**three * 5**five for three in range(9) for five in range(6) if 3**three * 5**five < 2 * n]
    return min(power << max(0, (-(-n // power) - 1).bit_length()) for power in powers)


def _places(begin: int, end: int, n: int, border: str) -> np.ndarray:
    """Where positions of a line of n lie that goes on beyond its ends."""
    at = np.arange(begin, end)
    if border == "edge":
        return np.clip(at, 0, n - 1)
    period = max(2 * (n - 1), 1)
    return np.minimum(at % period, period - at % period)


def correlate_reference(
    picture: np.ndarray, rows: Any, columns: Any, weights: Any, border: str = "mirror"
) -> np.ndarray:
    """float64 [h, w, c], not rounded."""
    h, w, _ = picture.shape
    total = np.zeros(picture.shape)
    for row, column, weight in zip(rows, columns, weights, strict=True):
        places = [_places(int(by), n + int(by), n, border) for n, by in ((h, row), (w, column))]
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
