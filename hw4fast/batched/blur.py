"""Batched forms of the Gaussian blurs of transforms.blur."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from hw4fast.batched.forms import FORMS, sides
from hw4fast.kernels.gaussian_blur import default_sigma
from hw4fast.nn import fixed_blur
from hw4fast.transforms.blur import size_for


@FORMS.register("blur")
def blur(pictures: Tensor, *, size: int, sigma: float | None) -> Tensor:
    return fixed_blur(pictures, size, [default_sigma(size) if sigma is None else sigma])


@FORMS.register("trick")
def trick(pictures: Tensor, *, rngs: Sequence[np.random.Generator], high: float) -> Tensor:
    return fixed_blur(pictures, 51, [rng.uniform(0.1, high) for rng in rngs])


@FORMS.register("gaussian_blur")
def gaussian_blur(pictures: Tensor, *, sigma: float) -> Tensor:
    width = sigma * (min(sides(pictures)) / 224)
    return fixed_blur(pictures, size_for(width), [width], border="edge", rounding="down")
