"""Noise: every value of a picture for itself (ImageNet-C, D. Hendrycks and T. Dietterich, ICLR 2019)."""

from __future__ import annotations

import numpy as np

from hw4fast.kernels import noise as kernel
from hw4fast.transforms.randomness import key_of
from hw4fast.transforms.spec import Parameter, Sweep, Transform, register


def gaussian_noise(picture: np.ndarray, *, rng: np.random.Generator, std: float) -> np.ndarray:
    """Adds N(0, std), where black is 0 and white 1; rounded down, as the published code does."""
    return kernel.gaussian_noise(picture, std, key_of(rng))


def shot_noise(picture: np.ndarray, *, rng: np.random.Generator, photons: float) -> np.ndarray:
    """Poisson(photons · x) / photons, where black is 0 and white 1: as few photons as in the dark."""
    return kernel.shot_noise(picture, photons, key_of(rng))


def impulse_noise(picture: np.ndarray, *, rng: np.random.Generator, amount: float) -> np.ndarray:
    """Values become black or white with probability `amount`: salt and pepper in each channel."""
    return kernel.impulse_noise(picture, amount, key_of(rng))


def speckle_noise(picture: np.ndarray, *, rng: np.random.Generator, std: float) -> np.ndarray:
    """x + x · N(0, std)."""
    return kernel.speckle_noise(picture, std, key_of(rng))


register(
    Transform(
        name="gaussian_noise",
        apply=gaussian_noise,
        parameters={"std": Parameter(0, 10, unit="of the range")},
        level="std",
        severities=(0.08, 0.12, 0.18, 0.26, 0.38),
        summary="Additive Gaussian noise; std is in units of the range from black to white.",
        family="noise",
        suffix=False,
        random=True,
        sweep=Sweep(0.005, 2, logarithmic=True),
    ),
    aliases=("noise",),
)
register(
    Transform(
        name="shot_noise",
        apply=shot_noise,
        parameters={"photons": Parameter(0.1, kernel.MOST_PHOTONS)},
        level="photons",
        severities=(60, 25, 12, 5, 3),
        summary="Poisson noise of so few photons that a white pixel counts.",
        family="noise",
        random=True,
        sweep=Sweep(kernel.MOST_PHOTONS, 0.2, logarithmic=True),
    )
)
register(
    Transform(
        name="impulse_noise",
        apply=impulse_noise,
        parameters={"amount": Parameter(0, 1, unit="of the values")},
        level="amount",
        severities=(0.03, 0.06, 0.09, 0.17, 0.27),
        summary="Salt and pepper; the amount is the share of values that become black or white.",
        family="noise",
        suffix=False,
        random=True,
        sweep=Sweep(0.001, 1, logarithmic=True),
    )
)
register(
    Transform(
        name="speckle_noise",
        apply=speckle_noise,
        parameters={"std": Parameter(0, 10, unit="of the value")},
        level="std",
        severities=(0.15, 0.2, 0.35, 0.45, 0.6),
        summary="Gaussian noise times the value itself.",
        family="noise",
        suffix=False,
        random=True,
        sweep=Sweep(0.01, 4, logarithmic=True),
    )
)
