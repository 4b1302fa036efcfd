"""ImageNet-C's 19 corruptions against their published formulas, at every severity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hw4fast.kernels.noise import normal, uniform
from hw4fast.kernels.plasma import plasma_reference
from hw4fast.robustness.corruption_error import ALEXNET
from hw4fast.transforms import TRANSFORMS, at_severity, parse
from hw4fast.transforms.randomness import key_of
from hw4fast.transforms.spec import ALIASES
from tests.transforms import published

PICTURES = dict(published.pictures())
FIXED_BY_FORMULA = (
    "gaussian_blur", "defocus_blur", "zoom_blur", "brightness", "contrast", "saturate", "pixelate", "jpeg",
)  # fmt: skip
BY_CHANCE = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur")
severities = pytest.mark.parametrize("severity", range(1, 6))


def row_of(name: str, severity: int) -> tuple:
    row = published.TABLE[name][severity - 1]
    return row if isinstance(row, tuple) else (row,)


def assert_near(result, wanted, share=0.999):
    """Within 2 grey levels at nearly all values, and as bright."""
    difference = result.astype(int) - wanted
    assert (np.abs(difference) <= 2).mean() >= share, np.bincount(np.abs(difference).ravel())[:20]
    assert abs(difference.mean()) < 0.6


def rngs() -> tuple[np.random.Generator, np.random.Generator]:
    """One for the transform, one to draw the same from."""
    return np.random.default_rng(5), np.random.default_rng(5)


def test_alexnet_names():
    assert set(ALEXNET) <= set(TRANSFORMS)
    assert set(ALEXNET) == set(published.TABLE)


@pytest.mark.parametrize("name", published.TABLE)
def test_the_constants_are_the_published_ones(name):
    transform = TRANSFORMS.get(name)
    for severity in range(1, 6):
        values = [value for value in transform.row(severity).values() if value is not None]
        assert tuple(values) == row_of(name, severity)


def test_the_names_of_imagecorruptions_work():
    for theirs in ("jpeg_compression", "elastic_transform"):
        assert at_severity(theirs, 2) == at_severity(ALIASES[theirs], 2)


# -- formulas ----------------------------------------------------------------------------------------------------


@severities
@pytest.mark.parametrize("name", FIXED_BY_FORMULA)
def test_what_has_no_chance_is_its_formula(name, severity):
    assert not TRANSFORMS.get(name).random
    for picture in PICTURES.values():
        assert_near(at_severity(name, severity)(picture), getattr(published, name)(picture, *row_of(name, severity)))


@severities
def test_motion_blur(severity):
    for picture in PICTURES.values():
        rng, same = rngs()
        result = TRANSFORMS.get("motion_blur")(picture, severity, rng)
        degrees = same.uniform(-45, 45)
        assert_near(result, published.motion_blur(picture, *row_of("motion_blur", severity), degrees))


@severities
def test_snow(severity):
    row = row_of("snow", severity)
    side = int(np.ceil(224 / row[2]))
    for picture in PICTURES.values():
        rng, same = rngs()
        result = TRANSFORMS.get("snow")(picture, severity, rng)
        noise, degrees = normal((side, side), key_of(same)).astype(np.float64), same.uniform(-135, -45)
        assert_near(result, published.snow(picture, row, noise, degrees))


@severities
def test_fog(severity):
    amount, decay = row_of("fog", severity)
    for picture in PICTURES.values():
        rng, same = rngs()
        layer = plasma_reference(256, decay, key_of(same))[:224, :224]
        result = TRANSFORMS.get("fog")(picture, severity, rng)
        assert_near(result, published.fog(picture, amount, layer))


@severities
def test_spatter(severity):
    pytest.importorskip("cv2")
    for picture in PICTURES.values():
        rng, same = rngs()
        noise = normal((224, 224), key_of(same)).astype(np.float64)
        result = TRANSFORMS.get("spatter")(picture, severity, rng)
        assert_near(result, published.spatter(picture, row_of("spatter", severity), noise), share=0.99)


@severities
def test_elastic(severity):
    for picture in PICTURES.values():
        rng, same = rngs()
        draws = uniform((224, 224, 2), key_of(same)).astype(np.float64) * 2 - 1
        result = TRANSFORMS.get("elastic")(picture, severity, rng)
        wanted = published.elastic(picture, *row_of("elastic", severity), draws.transpose(2, 0, 1))
        assert_near(result, wanted, share=0.995)  # where the picture is steep, float32 places show


@severities
@pytest.mark.parametrize("name", BY_CHANCE)
def test_what_is_random_changes_as_much_as_its_formula(name, severity):
    """Mean and spread of the change, and its mean in the dark and in the bright, within 6 standard errors."""
    rng = np.random.default_rng(severity)
    alone = 1 / 30 if name == "glass_blur" else 1  # how many of the changes count: neighbours are moved together
    for picture in (published.scene(), published.clouds(0, 50)):
        ours = at_severity(name, severity)(picture).astype(float) - picture
        theirs = getattr(published, name)(picture, *row_of(name, severity), rng).astype(float) - picture
        for part in (picture >= 0, picture < 60, picture > 180):
            if (n := part.sum() * alone) < 100:
                continue
            for power in (1, 2):
                a, b = ours[part] ** power, theirs[part] ** power
                assert abs(a.mean() - b.mean()) < 6 * np.sqrt((a.var() + b.var()) / n) + 1e-9
                assert abs(np.abs(a).mean() - np.abs(b).mean()) < 6 * np.sqrt((a.var() + b.var()) / n) + 1e-9


# -- sizes -------------------------------------------------------------------------------------------------------

SCALED = (
    "gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur", "glass_blur", "snow", "fog", "spatter", "frost",
    "elastic",
)  # fmt: skip


@severities
@pytest.mark.parametrize("name", SCALED)
def test_a_larger_picture_is_spoiled_as_much(name, severity):
    """The same picture with 224 and with 448 pixels a side: lengths grow with it."""
    small = published.clouds(0, 50)
    large = np.asarray(Image.fromarray(small).resize((448, 448), Image.Resampling.BICUBIC))
    change = []
    for picture in (small, large):
        chain = at_severity(name, severity)
        seeds = range(6 if chain.links[0].transform.random else 1)
        change.append(np.mean([np.abs(chain(picture, seed=seed).astype(float) - picture).mean() for seed in seeds]))
    factor = 1.6 if name == "glass_blur" else 1.35
    assert 1 / factor < change[1] / change[0] < factor, change


@severities
def test_small_pictures_are_spattered_as_much(severity):
    change = []
    for size in (28, 64, 224):
        flat = np.full((size, size, 3), 128, np.uint8)
        results = [at_severity("spatter", severity)(flat, seed=seed).astype(float) for seed in range(12)]
        change.append(np.mean([np.abs(result - flat).mean() for result in results]))
    assert max(change) < 1.6 * min(change), change


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(list(published.TABLE)),
    severity=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 48), st.integers(1, 48), st.sampled_from([1, 3]))
    | st.sampled_from([(1, 1, 3), (1, 1, 1), (1, 300, 3), (300, 1, 1), (2, 2, 3), (7, 224, 1), (230, 31, 3)]),
    grey=st.none() | st.sampled_from([0, 1, 128, 255]),
)
def test_any_picture(name, severity, shape, grey):
    picture = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    if grey is not None:
        picture[:] = grey
    before = picture.copy()
    picture.flags.writeable = False
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        result = at_severity(name, severity)(picture)
    assert result.dtype == np.uint8 and result.shape == shape and result.flags.c_contiguous
    assert np.array_equal(picture, before) and not np.shares_memory(result, picture)
    assert np.array_equal(at_severity(name, severity)(picture), result)


@pytest.mark.parametrize("name", published.TABLE)
def test_a_grey_picture_becomes_what_its_three_equal_channels_become(name):
    """Where chance is drawn per pixel; noise is drawn per value, and saturation has no grey."""
    if TRANSFORMS.get(name).family == "noise" or name == "saturate":
        pytest.skip("draws per value" if name != "saturate" else "a picture of one channel has no saturation")
    grey = published.clouds(3, 50)[..., :1]
    for severity in range(1, 6):
        one, three = (at_severity(name, severity)(p, key=b"one") for p in (grey, np.repeat(grey, 3, -1)))
        limit = 3 if name == "jpeg" else 1
        if name in ("frost", "spatter"):  # coloured: luma must be near
            three = three @ np.array([[0.299], [0.587], [0.114]])
            limit = 12
        assert np.abs(one - three.astype(float)).max() <= limit
        assert one.shape == grey.shape


def test_frost_is_a_part_of_a_texture():
    from hw4fast.transforms.weather import FROST_SIDE, FROSTS, frost_texture

    textures = [frost_texture(number).astype(int) for number in range(FROSTS)]
    assert len({texture.tobytes() for texture in textures}) == FROSTS
    for texture in textures:
        assert texture.shape == (FROST_SIDE, FROST_SIDE, 3) and 100 < texture.mean() < 220 and 20 < texture.std() < 50
    picture, seen = published.scene(), set()
    for seed in range(12):
        rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
        number, top, left = (int(same.integers(n)) for n in (FROSTS, FROST_SIDE - 223, FROST_SIDE - 223))
        ice = textures[number][top : top + 224, left : left + 224]
        wanted = np.clip(0.7 * picture + 0.7 * ice, 0, 255)
        assert np.abs(TRANSFORMS.get("frost")(picture, 3, rng) - wanted).max() <= 1 + 1e-3
        seen.add(number)
    assert len(seen) > 3


def test_what_is_brightened_by_a_wide_defocus_stays_within_bytes():
    white = np.full((224, 224, 3), 255, np.uint8)
    for severity in range(1, 6):
        assert (at_severity("defocus_blur", severity)(white) == 255).all()
        assert not at_severity("defocus_blur", severity)(white * 0).any()
    assert abs(parse("defocus_blur8:alias=0.5")(white // 2).min() - 127 * 1.0129755) < 1
