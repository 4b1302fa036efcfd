"""Gaussian blur against a naive float64 sum and against torchvision and OpenCV's conventions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hw4fast.transforms import parse


def mirrored(position: int, length: int) -> int:
    """Walks back from the border as often as needed, one reflection at a time."""
    while not 0 <= position < length:
        if length == 1:
            return 0
        position = -position if position < 0 else 2 * (length - 1) - position
    return position


def naive_blur(picture: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """The definition, in float64: a weighted sum over the size × size neighbourhood of every pixel."""
    height, width = picture.shape[:2]
    radius = size // 2
    offsets = range(-radius, radius + 1)
    weights = {(y, x): math.exp(-(y * y + x * x) / (2 * sigma * sigma)) for y in offsets for x in offsets}
    total = sum(weights.values())
    result = np.zeros(picture.shape)
    for row in range(height):
        for column in range(width):
            for (y, x), weight in weights.items():
                result[row, column] += weight / total * picture[mirrored(row + y, height), mirrored(column + x, width)]
    return result


def random_picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "spec", "size", "sigma"),
    [
        ((9, 7, 3), "blur3", 3, 0.8),
        ((8, 11, 1), "blur5:sigma=1.3", 5, 1.3),
        ((6, 5, 1), "blur9:sigma=4", 9, 4.0),  # the kernel is larger than the picture
        ((1, 1, 3), "blur51", 51, 8.0),
        ((1, 6, 1), "blur7", 7, 1.4),
        ((2, 2, 1), "blur13", 13, 2.3),
    ],
)
def test_agrees_with_the_definition(shape, spec, size, sigma):
    picture = random_picture(*shape)
    expected = naive_blur(picture, size, sigma)
    assert np.abs(parse(spec)(picture) - expected).max() <= 0.5 + 0.2


@pytest.mark.parametrize("size", [1, 3, 7, 25, 51])
@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_torchvision(size, channels):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    picture = random_picture(64, 53, channels)
    theirs = functional.gaussian_blur(torch.from_numpy(picture).permute(2, 0, 1), [size, size])
    ours = parse(f"blur{size}")(picture).astype(int)
    assert np.abs(ours - theirs.permute(1, 2, 0).numpy()).max() <= 1


def test_explicit_sigma_is_used():
    picture = random_picture(28, 28, 1)
    assert np.array_equal(parse("blur51:sigma=8")(picture), parse("blur51")(picture))
    assert not np.array_equal(parse("blur51:sigma=2")(picture), parse("blur51")(picture))


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_flat_picture_stays(value):
    flat = np.full((40, 30, 3), value, np.uint8)
    assert np.array_equal(parse("blur51")(flat), flat)


def test_size_one_is_the_picture_itself():
    picture = random_picture(5, 5, 3)
    assert np.array_equal(parse("blur1")(picture), picture)
