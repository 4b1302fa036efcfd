"""The family of noise: what it does to flat pictures, and that its draws belong to the picture, not to the level."""

from __future__ import annotations

import numpy as np
import pytest

from hw4fast.kernels import noise as kernel
from hw4fast.transforms import TRANSFORMS, at_level, at_severity, parse

NAMES = [name for name in TRANSFORMS if TRANSFORMS.get(name).family == "noise"]


def photo_like(height: int = 48, width: int = 40) -> np.ndarray:
    """Smooth in each channel, with different contrast in each."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    channels = [120 + 100 * np.sin(5 * x + 2 * y), 90 + 60 * np.cos(4 * y), 200 * x]
    return np.stack(channels, -1).astype(np.uint8)


def test_the_families():
    assert NAMES == ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"]
    families = {name: TRANSFORMS.get(name).family for name in TRANSFORMS}
    assert [name for name, family in families.items() if family == "weather"] == ["snow", "frost", "fog", "spatter"]
    assert set(families.values()) == {"blur", "colour", "digital", "geometry", "noise", "resampling", "weather"}
    blurs = ["blur", "trick", "gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"]
    assert [name for name, family in families.items() if family == "blur"] == blurs


def test_noise_has_the_stated_deviation():
    flat = np.full((300, 300, 1), 128, np.uint8)
    difference = parse("gaussian_noise:std=0.1")(flat).astype(float) + 0.5 - 128  # rounded down
    n = difference.size
    assert difference.std() == pytest.approx(25.5, rel=5 / np.sqrt(2 * n) + 1e-3)  # five standard errors
    assert abs(difference.mean()) < 5 * 25.5 / np.sqrt(n)


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_independent_per_channel(name):
    difference = at_severity(name, 3)(np.full((100, 100, 3), 128, np.uint8)).astype(float) - 128
    correlations = np.corrcoef(difference.reshape(-1, 3).T)
    assert np.abs(correlations - np.eye(3)).max() < 0.05


def test_noise_clips_instead_of_wrapping():
    white = parse("gaussian_noise:std=0.1")(np.full((64, 64, 1), 255, np.uint8))
    assert white.min() > 90 and (white == 255).mean() > 0.4
    assert not parse("shot_noise3")(np.zeros((9, 9, 3), np.uint8)).any()


@pytest.mark.parametrize("spec", ["gaussian_noise:std=0", "speckle_noise:std=0", "impulse_noise:amount=0"])
def test_noise_of_zero_is_the_picture(spec):
    picture = photo_like()
    assert np.array_equal(parse(spec)(picture), picture)


def test_the_field_does_not_depend_on_the_level():
    """Twice the std is twice the same field, to the rounding down of both."""
    flat = np.full((64, 64, 3), 128, np.uint8)
    for name in ("gaussian_noise", "speckle_noise"):
        weak, strong = (at_level(TRANSFORMS.get(name), std)(flat).astype(float) - 128 for std in (0.05, 0.1))
        inside = np.abs(strong) < 120
        assert np.abs(strong - 2 * weak)[inside].max() <= 2 and inside.mean() > 0.99
        assert np.array_equal(at_level(TRANSFORMS.get(name), 0.1)(flat), parse(f"{name}:std=0.1")(flat))
    few, many = (at_level(TRANSFORMS.get("impulse_noise"), amount)(flat) for amount in (0.1, 0.2))
    hit = few != 128
    assert np.array_equal(few[hit], many[hit]) and (many != 128).sum() > 1.8 * hit.sum()


def test_what_is_drawn_at_a_severity_is_its_own():
    flat = np.full((64, 64, 3), 128, np.uint8)
    for name in NAMES:
        fields = [at_severity(name, severity)(flat, key=b"one").astype(float).ravel() for severity in range(1, 6)]
        level = TRANSFORMS.get(name).severities[2]
        fields.append(at_level(TRANSFORMS.get(name), level)(flat, key=b"one").astype(float).ravel())
        assert np.abs(np.corrcoef(fields) - np.eye(6)).max() < 0.06


@pytest.mark.parametrize("photons", [0.1, 0.5, 1, 600])
def test_the_ends_of_shot_noise(photons):
    picture = photo_like()
    result = parse(f"shot_noise{photons}")(picture)
    assert result.shape == picture.shape
    values = set(np.unique(result).tolist())
    allowed = {int(min(count / photons, 1) * 255) for count in range(int(np.ceil(photons)) + 1)}
    assert values <= allowed and kernel.MOST_PHOTONS == 600
