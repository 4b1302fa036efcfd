"""A fractal height map, as fog: midpoint displacement on a square whose opposite sides are neighbours.

A. Fournier, D. Fussell and L. Carpenter, "Computer rendering of stochastic models", CACM 25 (1982), as ImageNet-C has
it (after F. Herne's mapgen): the middle of each square, then of its sides, is the mean of its four neighbours and a
draw from ± wibble², where wibble begins with 100 and is divided by `decay` from one scale to the next finer one. The
map is then shifted and scaled to 0 … 1. Draws are those of `noise.uniform`; the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hw4fast.kernels import compiled
from hw4fast.kernels.noise import uniform

LARGEST = 16384


def plasma(size: int, decay: float, key: int) -> np.ndarray:
    """float32 [size, size] in 0 … 1; size: a power of two up to LARGEST; decay: in 0.1 … 1000, the greater the
    smoother. key: 64 bits. Raises ValueError."""
    check(size)
    heights = np.empty((size, size), np.float32)
    draws = uniform(size * size, key)
    compiled().plasma(heights.ctypes.data, draws.ctypes.data, size, decay)
    return heights


def check(size: int) -> None:
    """Raises ValueError."""
    if not 1 <= size <= LARGEST or size & (size - 1):
        raise ValueError(f"size must be a power of two, 1 … {LARGEST}, not {size}")


def plasma_reference(size: int, decay: float, key: int) -> np.ndarray:
    """float64 [size, size], by whole arrays."""
    heights = np.zeros((size, size))
    draws = uniform(size * size, key).astype(np.float64)
    used, step, wibble = 0, size, 100.0

    def middle(total: np.ndarray) -> np.ndarray:
        nonlocal used
        part = draws[used : used + total.size].reshape(total.shape)
        used += total.size
        return total / 4 + wibble**2 * (2 * part - 1)

    while step >= 2:
        half = step // 2
        corner = heights[::step, ::step]
        below = corner + np.roll(corner, -1, 0)
        heights[half::step, half::step] = middle(below + np.roll(below, -1, 1))
        centre = heights[half::step, half::step]
        heights[::step, half::step] = middle(centre + np.roll(centre, 1, 0) + corner + np.roll(corner, -1, 1))
        heights[half::step, ::step] = middle(centre + np.roll(centre, 1, 1) + corner + np.roll(corner, -1, 0))
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return heights / heights.max() if heights.max() > 0 else heights


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """The one way to compute it here: name → function of (size, decay, key)."""
    return {"cpp-baseline": plasma}
