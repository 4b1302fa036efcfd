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


def tables(h: int, w: int, factors: Sequence[float] | np.ndarray) -> tuple[np.ndarray, int, int, int, float]:
    """For the CUDA kernel, which csrc/zoom_blur.cpp says more of: where all rows, then all columns of the copies lie,
    int32; how many copies there are; the picture's own weight; what is given back; the sum's factor. Raises ValueError
    as `zoom_blur` does."""
    table, *others = compiled().zoom_blur_tables(h, w, [float(factor) for factor in factors])
    return np.frombuffer(table, np.int32), *others


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
