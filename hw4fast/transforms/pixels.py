"""What several transforms do to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Float grey levels of any size → the nearest uint8 (halves to even), clipped to 0…255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def luma(picture: np.ndarray) -> np.ndarray:
    """float32 [h, w, 1 or 3] → [h, w, 1]: grey as ITU-R BT.601 weighs it, as Pillow does."""
    if picture.shape[2] == 1:
        return picture
    red, green, blue = (picture[..., [channel]] for channel in range(3))
    return red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)


def px(shape: Sequence[int]) -> float:
    """How long a pixel of a picture of shorter side 224 is in one of shape [h, w, …]: lengths scale with it."""
    return min(shape[:2]) / 224


def rounded_down(values: np.ndarray) -> np.ndarray:
    """Float grey levels of any size → uint8, clipped to 0…255: what the published corruptions end with."""
    return np.clip(values, 0, 255).astype(np.uint8)
