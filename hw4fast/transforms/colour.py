"""How bright, how contrasty, how colourful. Each moves every value away from, or towards, a pivot."""

from __future__ import annotations

import numpy as np

from hw4fast.transforms.pixels import luma, to_uint8
from hw4fast.transforms.spec import Parameter, Transform, register


def brightness(picture: np.ndarray, *, rng: np.random.Generator, factor: float) -> np.ndarray:
    """Every value × factor, clipped: 0 is black, 1 the picture itself (Pillow's ImageEnhance.Brightness)."""
    return to_uint8(_brightness(picture.astype(np.float32), factor))


def contrast(picture: np.ndarray, *, rng: np.random.Generator, factor: float) -> np.ndarray:
    """Distances from the picture's mean grey × factor, clipped: 0 is flat grey, 1 the picture itself
    (Pillow's ImageEnhance.Contrast)."""
    return to_uint8(_contrast(picture.astype(np.float32), factor))


def jitter(picture: np.ndarray, *, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness, then contrast, then saturation, each by a factor drawn evenly from 1 ± strength."""
    factors = rng.uniform(1 - strength, 1 + strength, 3)
    image = picture.astype(np.float32)
    for change, factor in zip((_brightness, _contrast, _saturation), factors, strict=True):
        image = change(image, factor)
    return to_uint8(image)


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return _away_from(np.float32(0), image, factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """About the mean of the luma, rounded to a grey level as Pillow does."""
    mean = np.floor(np.rint(luma(image)).mean(dtype=np.float64) + 0.5)
    return _away_from(np.float32(mean), image, factor)


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """About each pixel's own luma; a grey picture stays itself."""
    return _away_from(luma(image), image, factor)


def _away_from(pivot: np.ndarray | np.float32, image: np.ndarray, factor: float) -> np.ndarray:
    """float32 [h, w, c] of 0…255 → pivot + (image − pivot) × factor, clipped to 0…255."""
    return np.clip(pivot + (image - pivot) * np.float32(factor), 0, 255)


register(
    Transform(
        name="brightness",
        apply=brightness,
        parameters={"factor": Parameter(0, 100)},
        level="factor",
        severities=(0.8, 0.6, 0.4, 0.2, 0.1),
        summary="Every value times a factor; below 1 is darker, above 1 brighter.",
    )
)
register(
    Transform(
        name="contrast",
        apply=contrast,
        parameters={"factor": Parameter(0, 100)},
        level="factor",
        severities=(0.75, 0.5, 0.3, 0.2, 0.1),
        summary="Contrast about the picture's mean grey times a factor; below 1 is flatter.",
    )
)
register(
    Transform(
        name="jitter",
        apply=jitter,
        parameters={"strength": Parameter(0, 1)},
        level="strength",
        severities=(0.1, 0.25, 0.4, 0.6, 0.9),
        summary="Random brightness, contrast and saturation, each by a factor within 1 ± strength.",
        suffix=False,
    )
)
