"""hw4fast.nn.fit: the numbers that hw4fast.data.Preprocessing gives, for batches and pictures of several sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hw4fast.data.preprocessing import PRESETS, Preprocessing
from hw4fast.nn import fit

GREY = Preprocessing(mode="L", crop=(20, 24), mean=(0.3,), std=(0.35,), interpolation="bicubic")
WAYS = {
    **PRESETS,
    "grey": GREY,
    "bgr": replace(PRESETS["imagenet"], mode="BGR", crop=(40, 30), resize_size=48, interpolation="lanczos"),
}


def pictures(h: int, w: int, c: int, n: int = 2) -> np.ndarray:
    return np.random.default_rng(h * w).integers(0, 256, (n, h, w, c), np.uint8)


def expected(photos: list[np.ndarray], way: Preprocessing) -> np.ndarray:
    return way.normalise(np.stack([way.fit(photo) for photo in photos]))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_it_is_the_preprocessing(way):
    photos = pictures(37, 50, way.channels)
    found = fit(torch.from_numpy(photos), way)
    assert found.is_contiguous() and np.array_equal(found.numpy(), expected(list(photos), way))
    assert torch.equal(fit(torch.from_numpy(photos), way, torch.float16), found.half())
    several = [pictures(h, w, way.channels, 1)[0] for h, w in ((30, 44), (64, 50), (45, 45))]
    found = fit([torch.from_numpy(photo) for photo in several], way)
    assert np.array_equal(found.numpy(), expected(several, way))


def test_what_it_refuses():
    photos = torch.from_numpy(pictures(9, 9, 3))
    nearest = replace(PRESETS["stretch"], interpolation="nearest")
    with pytest.raises(ValueError, match="divides by 255, not nearest and 255"):
        fit(photos, nearest)
    with pytest.raises(ValueError, match="not bilinear and 1"):
        fit(photos, replace(PRESETS["stretch"], divisor=1))
    for wrong in (photos[..., :1], photos[0], [photos]):
        with pytest.raises(ValueError, match="the net reads pictures of 3 channels"):
            fit(wrong, PRESETS["stretch"])
    with pytest.raises(ValueError, match="there must be a picture"):
        fit([], PRESETS["stretch"])
    with pytest.raises(TypeError, match="must be uint8"):
        fit(photos.float(), PRESETS["stretch"])
    with pytest.raises(TypeError, match=r"picture must be a tensor, not ndarray: take torch.from_numpy\(picture\)"):
        fit([photos[0].numpy()], PRESETS["stretch"])
    with pytest.raises(ValueError, match=r"one tensor \[n, h, w, 3\] or a list of \[h, w, 3\], not \[9, 9, 3\]"):
        fit(photos[0], PRESETS["stretch"])
