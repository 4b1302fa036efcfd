"""Gaussian blur."""

from __future__ import annotations

import numpy as np

from hw4fast.transforms.pixels import to_uint8
from hw4fast.transforms.spec import Parameter, Transform, register


def default_sigma(size: int) -> float:
    """What OpenCV's getGaussianKernel takes for a kernel of `size` pixels, in pixels."""
    return 0.3 * ((size - 1) * 0.5 - 1) + 0.8


def gaussian_weights(size: int, sigma: float) -> np.ndarray:
    """float64 [size], size odd: exp(−x² / 2σ²) at whole pixels about the centre, normalised to sum 1."""
    offsets = np.arange(size) - size // 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def reflected(radius: int, length: int) -> np.ndarray:
    """Indices of the pixels −radius … length−1+radius of a line mirrored about its end pixels.

    OpenCV's BORDER_REFLECT_101 (dcb|abcde|dcb), mirrored on and on when radius ≥ length.
    """
    period = max(2 * (length - 1), 1)
    positions = np.arange(-radius, length + radius) % period
    return np.minimum(positions, period - positions)


def blur(picture: np.ndarray, *, rng: np.random.Generator, size: int, sigma: float | None) -> np.ndarray:
    """Separable Gaussian blur, uint8 [h, w, c] → the same, rounded to nearest.

    size: pixels, odd. sigma: pixels; OpenCV's for that size if None.
    Plain sums in a fixed order rather than a matrix product: the same bits on every machine.
    """
    weights = gaussian_weights(size, default_sigma(size) if sigma is None else sigma).astype(np.float32)
    result = picture.astype(np.float32)
    for axis in (0, 1):
        result = _along(result, weights, axis)
    return to_uint8(result)


def _along(image: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Convolves float32 [h, w, c] with symmetric weights along axis 0 or 1; two taps share one product."""
    radius, length = len(weights) // 2, image.shape[axis]
    padded = image.take(reflected(radius, length), axis)

    def shifted(offset: int) -> np.ndarray:
        start = radius + offset
        return padded[start : start + length] if axis == 0 else padded[:, start : start + length]

    total = shifted(0) * weights[radius]
    pair = np.empty_like(total)
    for offset in range(1, radius + 1):
        np.add(shifted(-offset), shifted(offset), out=pair)
        pair *= weights[radius + offset]
        total += pair
    return total


register(
    Transform(
        name="blur",
        apply=blur,
        parameters={"size": Parameter(1, 999, odd=True), "sigma": Parameter(0.01, 500)},
        level="size",
        severities=(3, 7, 13, 25, 51),
        summary="Gaussian blur; the level is the kernel's size in pixels (odd).",
    )
)
