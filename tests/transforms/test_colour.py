"""Colours against Pillow, Python's colorsys, and formulas."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from hw4fast.errors import UsageError
from hw4fast.transforms import TRANSFORMS, at_level, at_severity, colour, parse

NAMES = [name for name in TRANSFORMS if TRANSFORMS.get(name).family == "colour"]
ALL_BYTES = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)


def photo_like(height: int = 48, width: int = 40) -> np.ndarray:
    """Smooth in each channel, with different contrast in each."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    channels = [120 + 100 * np.sin(5 * x + 2 * y), 90 + 60 * np.cos(4 * y), 200 * x]
    return np.stack(channels, -1).astype(np.uint8)


def many_colours() -> np.ndarray:
    """[n, 1, 3]: corners, edges and greys of the cube, and colours between."""
    steps = np.array([0, 1, 2, 127, 128, 200, 254, 255], np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 1, 3)
    return np.concatenate([grid, np.random.default_rng(0).integers(0, 256, (2000, 1, 3), np.uint8)])


def test_the_family():
    ours = ["exposure", "gamma", "hue", "posterise", "solarise", "grey", "channel_swap", "jitter"]
    assert ours == NAMES
    assert [name for name in NAMES if TRANSFORMS.get(name).random] == ["jitter"]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    share=st.floats(0, 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
)
def test_any_level_of_any_picture(name, share, shape):
    transform = TRANSFORMS.get(name)
    picture = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    before = picture.copy()
    chain = at_level(transform, transform.sweep.at(share)) if transform.sweep else parse(name)
    result = chain(picture)
    assert result.shape == shape and result.dtype == np.uint8 and result.flags.c_contiguous
    assert np.array_equal(picture, before) and not np.shares_memory(result, picture)
    assert np.array_equal(chain(np.repeat(picture, 2, axis=1)[:, ::2], key=b"k"), chain(picture, key=b"k"))
    if transform.sweep:
        assert np.array_equal(at_level(transform, transform.sweep.start)(picture), picture)
    if shape[2] == 1 and name in ("hue", "grey", "channel_swap"):
        assert np.array_equal(result, picture)


# -- tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0, 0.3, 1, 1.5, 4])
def test_exposure_is_pillows_brightness(factor):
    picture = photo_like()
    theirs = np.asarray(ImageEnhance.Brightness(Image.fromarray(picture)).enhance(factor)).astype(int)
    assert np.abs(parse(f"exposure{factor}")(picture) - theirs).max() <= 1


@pytest.mark.parametrize("exponent", [0.05, 0.5, 1, 2.2, 20])
def test_gamma_is_its_formula(exponent):
    result = parse(f"gamma{exponent}")(ALL_BYTES).ravel()
    for value in range(256):
        assert abs(result[value] - 255 * (value / 255) ** exponent) <= 0.5 + 1e-9


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterise_is_pillows(bits):
    picture = photo_like()
    theirs = np.asarray(ImageOps.posterize(Image.fromarray(picture), bits))
    assert np.array_equal(parse(f"posterise{bits}")(picture), theirs)
    assert parse(f"posterize{bits}") == parse(f"posterise{bits}")


@pytest.mark.parametrize("threshold", [0, 1, 64, 128, 255, 256])
def test_solarise_is_pillows(threshold):
    theirs = np.asarray(ImageOps.solarize(Image.fromarray(ALL_BYTES[..., 0]), threshold))
    assert np.array_equal(parse(f"solarise{threshold}")(ALL_BYTES)[..., 0], theirs)


# -- between channels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 1, 17.5, 59, 60, 61, 90, 120, 180, 240, 299, 359, -45, -180, 360])
def test_hue_is_colorsys(degrees):
    picture = many_colours()
    result = parse(f"hue{degrees}")(picture)[:, 0]
    for pixel, turned in zip(picture[:, 0].tolist(), result.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in pixel))
        wanted = colorsys.hsv_to_rgb((h + degrees / 360) % 1, s, v)
        assert max(abs(255 * w - t) for w, t in zip(wanted, turned, strict=True)) <= 0.5 + 1e-3, pixel


def test_thirds_of_the_circle_exchange_the_channels():
    picture = photo_like()
    assert np.array_equal(parse("hue120")(picture), picture[..., [2, 0, 1]])
    assert np.array_equal(parse("hue-120")(picture), picture[..., [1, 2, 0]])
    assert np.array_equal(parse("hue360")(picture), picture)


@pytest.mark.parametrize("amount", [0, 0.2, 0.5, 0.9, 1])
def test_grey_is_pillows(amount):
    picture = many_colours()
    theirs = np.asarray(ImageEnhance.Color(Image.fromarray(picture)).enhance(1 - amount)).astype(int)
    result = parse(f"grey:amount={amount}")(picture)
    assert np.abs(result - theirs).max() <= 1
    assert amount < 1 or (result == result[..., :1]).all()


def test_channel_swap():
    picture = photo_like()
    assert np.array_equal(parse("channel_swap")(picture), picture[..., ::-1])
    assert np.array_equal(parse("channel_swap:order=GRB")(picture), picture[..., [1, 0, 2]])
    assert parse("channel_swap").name == "channel_swap:order=BGR"
    for order in ("RGB", "RRB", "bgr"):
        with pytest.raises(UsageError, match="order must be one of RBG, GRB, GBR, BRG, BGR"):
            parse(f"channel_swap:order={order}")
    with pytest.raises(UsageError, match="has no severities"):
        at_severity("channel_swap", 2)


# -- jitter and its parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0, 0.3, 1, 1.5, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_jitters_contrast_is_pillows(factor, channels):
    picture = photo_like()[..., :channels]
    image = Image.fromarray(picture[..., 0] if channels == 1 else picture)
    theirs = np.asarray(ImageEnhance.Contrast(image).enhance(factor)).reshape(picture.shape).astype(int)
    ours = colour._joined(colour._contrast(colour._planes(picture), factor))
    assert np.abs(ours - theirs).max() <= 1


def test_jitter_is_what_it_says():
    """In float64, one after the other; nothing is rounded between."""
    picture = photo_like()
    rng = np.random.default_rng(5)
    brightness, contrast, saturation = np.random.default_rng(5).uniform(0.5, 1.5, 3)
    image = np.clip(picture * brightness, 0, 255)
    weights = np.array([0.299, 0.587, 0.114])
    mean = np.floor(np.rint(image @ weights).mean() + 0.5)
    image = np.clip(mean + (image - mean) * contrast, 0, 255)
    luma = (image @ weights)[..., None]
    image = np.clip(luma + (image - luma) * saturation, 0, 255)
    assert np.abs(TRANSFORMS.get("jitter")(picture, rng=rng, strength=0.5) - image).max() <= 0.5 + 1e-3


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
