"""Additive noise."""

from __future__ import annotations

import numpy as np

from hw4fast.transforms.pixels import to_uint8
from hw4fast.transforms.spec import Parameter, Transform, register


def noise(picture: np.ndarray, *, rng: np.random.Generator, std: float) -> np.ndarray:
    """Adds independent Gaussian noise to every value, uint8 [h, w, c] → the same, clipped to 0…255.

    std: standard deviation before clipping, where black is 0 and white 1.
    """
    draws = rng.standard_normal(picture.shape, dtype=np.float32)
    return to_uint8(picture + draws * np.float32(255 * std))


register(
    Transform(
        name="noise",
        apply=noise,
        parameters={"std": Parameter(0, 10)},
        level="std",
        severities=(0.05, 0.1, 0.2, 0.3, 0.5),
        summary="Additive Gaussian noise; std is in units of the range from black to white.",
        suffix=False,
    )
)
