"""gaussian_blur: separable Gaussian blur of uint8 and float32 pictures, mirrored at the border.

Contract
    image  [h, w, c] or [n, h, w, c] ("HWC"), [c, h, w] or [n, c, h, w] ("CHW"); uint8 or float32
    kernel_size  pixels, odd, 1 … 999; one for both directions or (across, down)
    sigma        pixels, positive; likewise; OpenCV's and torchvision's 0.15·size + 0.35 if None
    border       what lies beyond the picture: "mirror", it is mirrored about its end pixels (dcb|abcd), on and on where
                 the kernel reaches farther: OpenCV's BORDER_REFLECT_101, torch's "reflect" without its limit;
                 "edge", the end pixel (aaa|abcd); "reflect", mirrored with the end pixels (cba|abcd), on and on
    rounding     of uint8: to the "nearest", halves to even, or "down", as a cast to uint8 does
    →  the same shape and dtype, contiguous

    w_k = exp(−(k − r)² / 2σ²) / Σ,  k = 0 … size − 1, r = ⌊size / 2⌋
    result[y, x] = Σ_jk w_j·w_k·image[y + j − r, x + k − r]

float32: weights and sums in float32, down first, one tap after the other.

uint8: fixed point, so that every machine, instruction set and number of threads gives the same bytes:
    W = weights in units of 2^−u as int16, rounded so that each partial sum from an end inward is within half a unit
        and that all sum to 1; u is the largest up to 20 with which they fit
    q = Σ_j W_down[j]·image[y + j − r, x]  to f = min(7, 23 − u_across) bits of a fraction, nearest, halves to even
    result = Σ_k W_across[k]·q[y, x + k − r]  rounded to whole grey levels
No sum reaches 2^31. Before the last rounding the result is within 0.2 grey levels of the exact sum, whatever the
picture, its size and sigma: at most 1 beside the exact sum rounded likewise; a flat picture stays.

Source: Szeliski, "Computer Vision" (2nd ed., 2022), section 3.2; the sizes and sigmas are those of OpenCV's
getGaussianKernel.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from hw4fast.kernels import compiled, isas, threads_by_default
from hw4fast.kernels.numba_variants import compiled_by_numba, set_threads

DTYPES = (np.uint8, np.float32)
LAYOUTS = ("HWC", "CHW")
BORDERS = ("mirror", "edge", "reflect")  # csrc/gaussian_blur.cpp counts them
ROUNDINGS = ("nearest", "down")
LARGEST_KERNEL = 999
FINEST = 20  # bits of a weight's unit
Sizes = int | tuple[int, int]  # one for both directions, or (across, down)
Sigmas = float | tuple[float, float] | None


def default_sigma(size: int) -> float:
    """What OpenCV's getGaussianKernel and torchvision take for a kernel of `size` pixels, in pixels."""
    return 0.3 * ((size - 1) * 0.5 - 1) + 0.8


def gaussian_weights(size: int, sigma: float) -> np.ndarray:
    """float64 [size], size odd: exp(−x² / 2σ²) at whole pixels about the centre, normalised to sum 1."""
    offsets = np.arange(size) - size // 2
    with np.errstate(over="ignore", under="ignore"):  # far beyond sigma a weight is 0
        weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def fixed_weights(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """(W, u): symmetric float64 weights that sum to 1 as int16 in units of 2^−u that sum to 2^u."""
    middle, largest = len(weights) // 2, np.iinfo(np.int16).max
    sums = np.cumsum(weights[:middle])
    fixed = np.empty(len(weights))
    side, other = fixed[:middle], fixed[: -middle - 1 : -1]
    # a weight is rounded by at most 1: in still finer units the greatest doesn't fit
    for unit in range(min(FINEST, int(np.log2((largest + 2) / weights.max())) + 1), -1, -1):
        half = np.rint(sums * 2.0**unit)
        side[:] = half
        side[1:] -= half[:-1]
        other[:] = side
        fixed[middle] = 2.0**unit - 2 * half[-1:].sum()
        if fixed.max() <= largest:
            break
    return fixed.astype(np.int16), unit


@lru_cache(128)
def fixed_gaussian(size: int, sigma: float) -> tuple[np.ndarray, int]:
    """`fixed_weights` of a kernel, not to be written to."""
    fixed, unit = fixed_weights(gaussian_weights(size, sigma))
    fixed.flags.writeable = False
    return fixed, unit


def reflected(radius: int, length: int, border: str = "mirror") -> np.ndarray:
    """Indices of the pixels −radius … length−1+radius of a line, what lies beyond it as `border` says."""
    positions = np.arange(-radius, length + radius)
    if border == "edge":
        return positions.clip(0, length - 1)
    twice = int(border == "reflect")  # whether the end pixel stands there again
    period = max(2 * (length - 1 + twice), 1)
    positions %= period
    return np.minimum(positions, period - twice - positions)


def pairs(kernel_size: Any, sigma: Any) -> tuple[tuple[int, int], tuple[float, float]]:
    """Both as (across, down). Raises ValueError for a wrong value, TypeError for what is no number."""
    try:
        across, down = (operator.index(size) for size in _pair(kernel_size, "kernel_size"))
    except TypeError:
        raise TypeError(f"kernel_size must be an integer or two (across, down), not {kernel_size!r}") from None
    if not all(1 <= size <= LARGEST_KERNEL and size % 2 == 1 for size in (across, down)):
        raise ValueError(f"kernel_size must be odd, in 1…{LARGEST_KERNEL}, not {kernel_size}")
    if sigma is None:
        return (across, down), (default_sigma(across), default_sigma(down))
    pair = _pair(sigma, "sigma")
    try:
        sigma_x, sigma_y = (float(value) for value in pair)
    except (TypeError, ValueError) as error:
        raise type(error)(f"sigma must be a number or two (across, down), not {sigma!r}") from None
    if not (0 < sigma_x < math.inf and 0 < sigma_y < math.inf):
        raise ValueError(f"sigma must be positive and finite, not {sigma}")
    return (across, down), (sigma_x, sigma_y)


def _pair(value: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list):
        return value, value
    if len(value) not in (1, 2):
        raise ValueError(f"{name} must be one number or two (across, down), not {value}")
    return value[0], value[-1]


def check(image: Any, layout: str) -> None:
    """What the NumPy faces check, on anything with .shape and .ndim. Raises ValueError."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {list(LAYOUTS)}, not {layout!r}")
    if image.ndim not in (3, 4):
        letters = ", ".join(layout.lower())
        raise ValueError(f"image must be [{letters}] or [n, {letters}], not {list(image.shape)}")


def reference(
    image: np.ndarray, kernel_size: Sizes, sigma: Sigmas = None, layout: str = "HWC", border: str = "mirror"
) -> np.ndarray:
    """In float64 and not rounded, slow and obvious."""
    (across, down), (sigma_x, sigma_y) = pairs(kernel_size, sigma)
    rows, columns = _axes(image, layout)
    result = _along(image.astype(np.float64), gaussian_weights(down, sigma_y), rows, border)
    return _along(result, gaussian_weights(across, sigma_x), columns, border)


def reference_uint8(
    image: np.ndarray,
    kernel_size: Sizes,
    sigma: Sigmas = None,
    layout: str = "HWC",
    border: str = "mirror",
    rounding: str = "nearest",
) -> np.ndarray:
    """The very bytes, slow and obvious: fixed point in float64, which is exact below 2^53."""
    (across, down), (sigma_x, sigma_y) = pairs(kernel_size, sigma)
    (fixed_x, unit_x), (fixed_y, unit_y) = (
        fixed_weights(gaussian_weights(*of)) for of in ((across, sigma_x), (down, sigma_y))
    )
    fraction = kept_bits(unit_x)
    rows, columns = _axes(image, layout)
    middle = np.rint(_along(image.astype(np.float64), fixed_y, rows, border) / 2 ** (unit_y - fraction))
    exact = _along(middle, fixed_x, columns, border) / 2 ** (unit_x + fraction)
    return (np.rint(exact) if rounding == "nearest" else np.floor(exact)).astype(np.uint8)


def kept_bits(unit_across: int) -> int:
    """Bits of a fraction that stay between the passes: as many as an int16 and the sums across hold."""
    return min(7, 23 - unit_across)


def _axes(image: np.ndarray, layout: str) -> tuple[int, int]:
    return (image.ndim - 3, image.ndim - 2) if layout == "HWC" else (image.ndim - 2, image.ndim - 1)


def _along(image: np.ndarray, weights: np.ndarray, axis: int, border: str) -> np.ndarray:
    length, radius = image.shape[axis], len(weights) // 2
    result = np.zeros(image.shape)
    if image.size:
        line = reflected(radius, length, border)
        for k, weight in enumerate(weights):
            result += weight * image.take(line[k : k + length], axis)
    return result


@lru_cache(64)
def prepared(sizes: tuple[int, int], sigmas: tuple[float, float], is_float: bool) -> tuple[tuple[Any, ...], object]:
    """(The kernel's arguments down, across, sizes, units and kept; the weights, to be held while it runs)."""
    kernels = zip(sizes, sigmas, strict=True)
    (across, unit_across), (down, unit_down) = (
        (gaussian_weights(*of).astype(np.float32), 0) if is_float else fixed_gaussian(*of) for of in kernels
    )
    addresses = down.ctypes.data, across.ctypes.data
    return (*addresses, sizes[::-1], (unit_down, unit_across), kept_bits(unit_across)), (down, across)


def gaussian_blur(
    image: np.ndarray,
    kernel_size: Sizes,
    sigma: Sigmas = None,
    layout: str = "HWC",
    isa: str = "",
    threads: int = 0,
    border: str = "mirror",
    rounding: str = "nearest",
) -> np.ndarray:
    """A blurred copy of a NumPy array from our kernel; rows may lie anywhere, other strides are copied first.

    isa: an instruction set of `hw4fast.kernels.isas()`; empty for HW4FAST_ISA or the best.
    threads: 0 for HW4FAST_THREADS or all cores; the result does not depend on it.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape, value or `isa`.
    """
    check(image, layout)
    if image.dtype not in DTYPES:
        raise TypeError(f"image must be uint8 or float32, not {image.dtype}")
    if border not in BORDERS or rounding not in ROUNDINGS:
        raise ValueError(f"border must be one of {list(BORDERS)} and rounding one of {list(ROUNDINGS)}")
    sizes, sigmas = pairs(kernel_size, sigma)
    batch = image if image.ndim == 4 else image[None]
    n, *sides = batch.shape
    h, w, c = sides if layout == "HWC" else (sides[1], sides[2], 1)
    pixel = batch.strides[2:] if layout == "HWC" else (batch.strides[3], 0)
    if not _rows_are_whole(batch, w, c, pixel):
        batch = batch.copy(order="C")
    steps = [stride // batch.itemsize for stride in batch.strides]
    planes, strides = (1, (steps[0], 0, steps[1])) if layout == "HWC" else (sides[0], tuple(steps[:3]))
    output = np.empty(image.shape, image.dtype)
    is_float = image.dtype == np.float32
    arguments, _weights = prepared(sizes, sigmas, is_float)
    compiled().gaussian_blur(
        is_float,
        batch.ctypes.data,
        strides,
        output.ctypes.data,
        (n, planes, h, w, c),
        *arguments,
        isa,
        threads or threads_by_default() or 0,
        BORDERS.index(border),
        rounding == "nearest",
    )
    return output


def _rows_are_whole(batch: np.ndarray, w: int, c: int, pixel: tuple[int, ...]) -> bool:
    """Whether a row's w·c numbers are neighbours in memory; pixel: bytes from pixel to pixel and channel to channel."""
    item = batch.itemsize
    whole = (w <= 1 or pixel[0] == c * item) and (c <= 1 or pixel[1] == item)
    return whole and batch.flags.aligned and not any(stride % item for stride in batch.strides)


def gaussian_blur_numba(image: np.ndarray, kernel_size: int, sigma: float | None = None) -> np.ndarray:
    """One HWC picture, uint8 or float32: what twenty lines of Python reach.

    Raises ValueError for a wrong shape or value, TypeError for a wrong dtype.
    """
    (size, down), (width, height) = pairs(kernel_size, sigma)
    if image.ndim != 3 or (size, width) != (down, height):
        raise ValueError("the numba variant takes one picture [h, w, c] and the same kernel across and down")
    if image.dtype not in DTYPES:
        raise TypeError(f"image must be uint8 or float32, not {image.dtype}")
    if image.size == 0:
        return image.copy()
    h, w, c = image.shape
    weights = np.pad(gaussian_weights(size, width).astype(np.float32), (0, -size % 4))  # fours of taps
    rows = np.pad(reflected(size // 2, h), (0, -size % 4))
    columns = (np.pad(reflected(size // 2, w), (0, -size % 4))[:, None] * c + np.arange(c)).ravel()
    result = np.empty(image.shape, image.dtype)  # contiguous, whatever the image is: written as lines
    set_threads()
    rounds = image.dtype == np.uint8
    lines, results = image.reshape(h, w * c), result.reshape(h, w * c)
    compiled_by_numba(_blur)(lines, weights, rows, columns, c, rounds, results)
    return result


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """Every compiled way to compute it here, fastest first: name → function of (image, **options)."""

    def on(isa: str) -> Callable[..., np.ndarray]:
        return partial(gaussian_blur, isa=isa)

    return {f"cpp-{isa}": on(isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make()` gives (image, options) of gaussian_blur."""

    name: str
    shape: tuple[int, ...]
    kernel_size: Sizes
    sigma: Sigmas = None
    layout: str = "HWC"
    dtype: str = "uint8"

    def make(self) -> tuple[np.ndarray, dict[str, Any]]:
        rng = np.random.Generator(np.random.PCG64([*self.shape, len(self.name)]))
        image = rng.integers(0, 256, self.shape, np.uint8)
        if self.dtype == "float32":
            image = rng.random(self.shape, np.float32)
        return image, {"kernel_size": self.kernel_size, "sigma": self.sigma, "layout": self.layout}


BENCHMARK_CASES = (
    Case("51-224-hwc", (224, 224, 3), 51),
    Case("51-224-chw", (3, 224, 224), 51, layout="CHW"),
    Case("51-224-chw-float32", (3, 224, 224), 51, layout="CHW", dtype="float32"),
    Case("5-224-hwc", (224, 224, 3), 5),
    Case("51-480x640-hwc", (480, 640, 3), 51),
)


def cases() -> Iterator[Case]:
    """Widths around every vector, kernels beyond the picture, flat to needle-sharp sigmas, batches, both layouts."""
    for dtype in ("uint8", "float32"):
        for layout in LAYOUTS:

            def case(
                name: str,
                n: tuple[int, ...],
                h: int,
                w: int,
                c: int,
                kernel_size: Sizes,
                sigma: Sigmas = None,
                layout: str = layout,
                dtype: str = dtype,
            ) -> Case:
                shape = (*n, h, w, c) if layout == "HWC" else (*n, c, h, w)
                return Case(f"{name}-{layout}-{dtype}", shape, kernel_size, sigma, layout, dtype)

            for w in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 257):
                yield case(f"w{w}", (), 5, w, 1, 5)
            for h in (1, 2, 3, 4, 5, 6, 7, 8, 9, 63, 64, 65, 67, 131):
                yield case(f"h{h}", (), h, 6, 3, (3, 7))
            for c in (1, 2, 3, 4, 7):
                yield case(f"c{c}", (2,), 11, 13, c, 9, (1.5, 2.5))
            for size in (1, 3, 5, 51, 101, 999):
                yield case(f"k{size}", (), 19, 23, 3, size)
            for sigma in (1e-300, 0.05, 0.3, 1.0, 50.0, 1e300):
                yield case(f"sigma{sigma:g}", (), 20, 21, 3, (21, 11), sigma)
            yield case("batch", (3,), 21, 17, 3, (11, 5))
            yield case("none", (0,), 8, 8, 3, 5)
            yield case("no-rows", (), 0, 8, 3, 5)
            yield case("no-channels", (2,), 8, 8, 0, 5)
            yield case("wide", (), 9, 3001, 3, 13)
            yield case("large", (), 224, 224, 3, 51)


def cost(case: Case) -> tuple[int, int]:
    """(bytes, flops): every number read and written once; a multiplication and an addition count as two."""
    values = int(np.prod(case.shape))
    sizes, _ = pairs(case.kernel_size, case.sigma)
    return 2 * values * np.dtype(case.dtype).itemsize, 2 * values * sum(sizes)


def _blur(prange: Any) -> Callable[..., None]:
    def blur(image: Any, weights: Any, rows: Any, columns: Any, step: int, rounds: bool, result: Any) -> None:
        h, size = image.shape
        for y in prange(h):
            down, across = np.zeros(size, np.float32), np.zeros(size, np.float32)
            for k in range(0, len(weights), 4):  # four at a time: six loads and stores for eight operations
                a, b, c, d = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
                p, q, r, s = image[rows[y + k]], image[rows[y + k + 1]], image[rows[y + k + 2]], image[rows[y + k + 3]]
                for i in range(size):
                    down[i] += a * p[i] + b * q[i] + c * r[i] + d * s[i]
            line = down[columns]
            for k in range(0, len(weights), 4):
                a, b, c, d = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
                p, q, r, s = line[k * step :], line[(k + 1) * step :], line[(k + 2) * step :], line[(k + 3) * step :]
                for i in range(size):
                    across[i] += a * p[i] + b * q[i] + c * r[i] + d * s[i]
            for i in range(size):
                result[y, i] = np.rint(across[i]) if rounds else across[i]

    return blur
