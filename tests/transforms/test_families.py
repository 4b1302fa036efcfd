"""Noise, rotation and colour against formulas and against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from hw4fast.transforms import parse


def photo_like(height: int = 48, width: int = 40) -> np.ndarray:
    """Smooth in each channel, with different contrast in each."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    channels = [120 + 100 * np.sin(5 * x + 2 * y), 90 + 60 * np.cos(4 * y), 200 * x]
    return np.stack(channels, -1).astype(np.uint8)


def test_noise_has_the_stated_deviation():
    flat = np.full((300, 300, 1), 128, np.uint8)
    difference = parse("noise:std=0.1")(flat).astype(float) - 128
    n = difference.size
    assert difference.std() == pytest.approx(25.5, rel=5 / np.sqrt(2 * n) + 1e-3)  # five standard errors
    assert abs(difference.mean()) < 5 * 25.5 / np.sqrt(n)


def test_noise_is_independent_per_channel():
    difference = parse("noise:std=0.1")(np.full((100, 100, 3), 128, np.uint8)).astype(float) - 128
    correlations = np.corrcoef(difference.reshape(-1, 3).T)
    assert np.abs(correlations - np.eye(3)).max() < 0.05


def test_noise_clips_instead_of_wrapping():
    white = parse("noise:std=0.1")(np.full((64, 64, 1), 255, np.uint8))
    assert white.min() > 90 and (white == 255).mean() > 0.4


def test_noise_of_zero_is_the_picture():
    picture = photo_like()
    assert np.array_equal(parse("noise:std=0")(picture), picture)


@pytest.mark.parametrize("turns", [-4, -3, -2, -1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 7, 28])
@pytest.mark.parametrize("fill", ["edge", "black", "white"])
def test_quarter_turns_are_exact_and_counter_clockwise(turns, size, fill):
    picture = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    assert np.array_equal(parse(f"rotate{90 * turns}:fill={fill}")(picture), np.rot90(picture, turns))


@pytest.mark.parametrize("degrees", [7, -33, 120.5])
def test_rotation_agrees_with_pillow_inside(degrees):
    picture = photo_like()
    theirs = np.asarray(Image.fromarray(picture).rotate(degrees, Image.Resampling.BILINEAR)).astype(int)
    inside = np.asarray(Image.new("L", (40, 48), 255).rotate(degrees, Image.Resampling.BILINEAR)) == 255
    ours = parse(f"rotate{degrees}")(picture).astype(int)  # both clamp half a pixel beyond
    assert inside.sum() > 500
    assert np.abs(ours - theirs)[inside].max() <= 1


@pytest.mark.parametrize(("fill", "value"), [("edge", 90), ("black", 0), ("white", 255)])
def test_what_is_seen_beyond_the_border(fill, value):
    corner = parse(f"rotate45:fill={fill}")(np.full((31, 31, 1), 90, np.uint8))[0, 0, 0]
    assert corner == value


@pytest.mark.parametrize("factor", [0, 0.3, 1, 1.5, 4])
def test_brightness_is_pillows(factor):
    picture = photo_like()
    theirs = np.asarray(ImageEnhance.Brightness(Image.fromarray(picture)).enhance(factor)).astype(int)
    assert np.abs(parse(f"brightness{factor}")(picture) - theirs).max() <= 1


@pytest.mark.parametrize("factor", [0, 0.3, 1, 1.5, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_is_pillows(factor, channels):
    picture = photo_like()[..., :channels]
    image = Image.fromarray(picture[..., 0] if channels == 1 else picture)
    theirs = np.asarray(ImageEnhance.Contrast(image).enhance(factor)).reshape(picture.shape).astype(int)
    assert np.abs(parse(f"contrast{factor}")(picture) - theirs).max() <= 1


def test_jitter_stays_within_its_factors_and_moves_each_of_the_three():
    """A grey picture shows brightness × contrast only; in colour the ratio of chroma shows saturation."""
    flat = np.full((4, 4, 1), 100, np.uint8)  # contrast leaves a flat picture alone
    values = [int(parse("jitter:strength=0.3")(flat, seed=seed)[0, 0, 0]) for seed in range(300)]
    assert 70 <= min(values) < 75 and 125 < max(values) <= 130
    colour = np.full((4, 4, 3), (110, 100, 90), np.uint8)
    spreads = [int(np.ptp(parse("jitter:strength=0.3")(colour, seed=seed)[0, 0])) for seed in range(300)]
    assert min(spreads) < 14 and max(spreads) > 27  # 20 × brightness × contrast × saturation
    assert not np.array_equal(parse("jitter:strength=0.3")(photo_like(), seed=1), photo_like())


def test_jitter_of_zero_is_the_picture():
    picture = photo_like()
    assert np.array_equal(parse("jitter:strength=0")(picture), picture)
