"""Batched forms of transforms.noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from hw4fast.batched.forms import FORMS
from hw4fast.nn import noise
from hw4fast.transforms.randomness import key_of

Rngs = Sequence[np.random.Generator]


@FORMS.register("gaussian_noise")
def gaussian_noise(pictures: Tensor, *, rngs: Rngs, std: float) -> Tensor:
    return noise(pictures, "gaussian", std, [key_of(rng) for rng in rngs])


@FORMS.register("shot_noise")
def shot_noise(pictures: Tensor, *, rngs: Rngs, photons: float) -> Tensor:
    return noise(pictures, "shot", photons, [key_of(rng) for rng in rngs])


@FORMS.register("impulse_noise")
def impulse_noise(pictures: Tensor, *, rngs: Rngs, amount: float) -> Tensor:
    return noise(pictures, "impulse", amount, [key_of(rng) for rng in rngs])


@FORMS.register("speckle_noise")
def speckle_noise(pictures: Tensor, *, rngs: Rngs, std: float) -> Tensor:
    return noise(pictures, "speckle", std, [key_of(rng) for rng in rngs])
