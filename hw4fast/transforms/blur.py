"""Gaussian blur."""

from __future__ import annotations

import numpy as np

from hw4fast.kernels.gaussian_blur import LARGEST_KERNEL, gaussian_blur
from hw4fast.transforms.spec import Parameter, Transform, register


def blur(picture: np.ndarray, *, rng: np.random.Generator, size: int, sigma: float | None) -> np.ndarray:
    """Separable Gaussian blur, uint8 [h, w, c] → the same, at most 1 grey level beside the exact value rounded.

    size: pixels, odd. sigma: pixels; OpenCV's for that size if None.
    In fixed point: the same bits on every machine. On one thread: a picture takes less time than starting another.
    """
    return gaussian_blur(picture, size, sigma, threads=1)


register(
    Transform(
        name="blur",
        apply=blur,
        parameters={"size": Parameter(1, LARGEST_KERNEL, odd=True), "sigma": Parameter(0.01, 500)},
        level="size",
        severities=(3, 7, 13, 25, 51),
        summary="Gaussian blur; the level is the kernel's size in pixels (odd).",
    )
)


def trick(picture: np.ndarray, *, rng: np.random.Generator, high: float) -> np.ndarray:
    """The homework's chain, Resize 224² → CenterCrop → ToTensor → Normalize → ColorJitter() → GaussianBlur(51), on a
    picture that is at its size already: ColorJitter() without arguments changes nothing, and a blur whose weights sum
    to 1 may as well come before Normalize. So it is a blur of 51 pixels, sigma drawn evenly from 0.1 … high."""
    return blur(picture, rng=rng, size=51, sigma=rng.uniform(0.1, high))


register(
    Transform(
        name="trick",
        apply=trick,
        parameters={"high": Parameter(0.1, 500)},
        level="high",
        severities=(0.5, 1, 2, 4, 8),
        summary="The homework's trick: a blur of 51 pixels, sigma drawn from 0.1 … high (there: 2).",
        suffix=False,
    )
)
