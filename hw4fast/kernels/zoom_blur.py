"""ImageNet-C's zoom blur: the mean of a picture and of enlarged copies of it, as a lens zooms while it is exposed.

A copy of factor f is the middle ⌈h / f⌉ × ⌈w / f⌉ pixels, enlarged bilinearly such that the outermost pixels lie on
the borders (scipy.ndimage.zoom, order 1), of which the upper left h × w are kept. The published code adds the picture
itself once more. The mean is rounded down, as its cast to uint8 does. Within 1 grey level of the exact value; the same
bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hw4fast.kernels import compiled, isas

MOST = 100.0  # of a factor
COPIES = 1000
END_BITS = 12  # of a share, that a sum keeps


def zoom_blur(picture: np.ndarray, factors: Sequence[float] | np.ndarray, isa: str = "") -> np.ndarray:
    """uint8 [h, w, 1 or 3] → the same shape; factors: each in 1 … MOST, at most 1,000 of them. On one thread.

    Raises TypeError for a wrong dtype, ValueError for the rest.
    """
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"a picture must be [h, w, 1 or 3], not {list(picture.shape)}")
    h, w, c = picture.shape
    whole = picture.strides[2] == 1 and picture.strides[1] == c and picture.strides[0] > 0
    source = picture if whole else np.ascontiguousarray(picture)
    output = np.empty(picture.shape, np.uint8)
    where = (source.ctypes.data, source.strides[0], output.ctypes.data, (h, w, c))
    compiled().zoom_blur(*where, [float(factor) for factor in factors], isa)
    return output


def check_factors(factors: Sequence[float] | np.ndarray) -> None:
    """Raises ValueError."""
    if len(factors) > COPIES:
        raise ValueError(f"zoom_blur: at most {COPIES} factors, not {len(factors)}")
    for factor in factors:
        if not 1 <= factor <= MOST:
            raise ValueError(f"zoom_blur: factors must lie in 1 … {MOST:g}, not be {factor}")


def lost(copies: int) -> int:
    """What a sum over so many copies has lost on average, and is given back: rounded down twice, half a unit of 2⁵
    across, at most one down."""
    return copies * (2**4 + 1)


def line_of(n: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the n outputs of a copy's line lie, as csrc/zoom_blur.cpp has it: int64 [n], the pixel before each, and how
    many of 2¹⁴ parts of the way to the next one; −1 where there is none of the copy."""
    cut = int(np.ceil(n / factor))
    outputs = round(cut * factor)
    step = (cut - 1) / (outputs - 1) if outputs > 1 else 1.0
    at = step * np.arange(n)
    below = np.minimum(at.astype(np.int64), cut - 1)
    parts = ((at - below) * 2**14 + 0.5).astype(np.int64)
    return (n - cut) // 2 + below, np.where((np.arange(n) < outputs) & (at <= cut - 1), parts, -1)


def is_whole(n: int, factor: float) -> bool:
    """Whether a copy's line is the picture's own."""
    cut = int(np.ceil(n / factor))
    return cut == n and round(cut * factor) == n


def zoom_blur_reference(picture: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """float64 [h, w, c], not rounded."""
    total = picture.astype(np.float64)
    for factor in factors:
        rows, columns = (_matrix(n, factor) for n in picture.shape[:2])
        total += np.einsum("yi,ijc,xj->yxc", rows, picture.astype(np.float64), columns, optimize=True)
    return total / (len(factors) + 1)


def _matrix(n: int, factor: float) -> np.ndarray:
    """[n, n]: outputs from inputs of one line."""
    cut = int(np.ceil(n / factor))
    outputs = round(cut * factor)
    step = (cut - 1) / (outputs - 1) if outputs > 1 else 1.0
    matrix = np.zeros((n, n))
    for i in range(min(n, outputs)):
        at = step * i
        if at <= cut - 1:  # as scipy: what rounding puts beyond the last pixel is 0
            below, begin = min(int(at), cut - 1), (n - cut) // 2
            matrix[i, begin + below] += 1 - (at - below)
            matrix[i, begin + min(below + 1, cut - 1)] += at - below
    return matrix


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """Every compiled way to compute it here, fastest first: name → function of (picture, factors)."""
    return {f"cpp-{isa}": partial(zoom_blur, isa=isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make()` gives (picture, factors)."""

    name: str
    shape: tuple[int, int, int]
    factors: tuple[float, ...]

    def make(self) -> tuple[np.ndarray, tuple[float, ...]]:
        rng = np.random.Generator(np.random.PCG64([*self.shape, len(self.factors)]))
        return rng.integers(0, 256, self.shape, np.uint8), self.factors


BENCHMARK_CASES = (Case("severity-3-224", (224, 224, 3), tuple(np.arange(1, 1.21, 0.02).tolist())),)


def cases() -> Iterator[Case]:
    """Sizes around every vector, one pixel, no factor, factors beyond the picture."""
    for n in (1, 2, 3, 5, 6, 15, 16, 17, 28, 43, 64, 65, 130):
        for c in (1, 3):
            yield Case(f"{n}x{n + 2}x{c}", (n, n + 2, c), (1.0, 1.02, 1.1, 1.31))
    yield Case("none", (9, 7, 3), ())
    yield Case("far", (20, 31, 3), (3.0, 30.0, 100.0))


def cost(case: Case) -> tuple[int, int]:
    """(bytes, operations): every value read and written once; two lerps of three operations per copy and value."""
    values = int(np.prod(case.shape))
    return 2 * values, 6 * values * len(case.factors)
