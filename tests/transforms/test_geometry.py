"""Where pixels go: against NumPy's turns, Pillow, and linear algebra."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hw4fast.errors import UsageError
from hw4fast.transforms import TRANSFORMS, at_level, at_severity, generator, parse
from hw4fast.transforms.geometry import FILLS, _to_corners

NAMES = [name for name in TRANSFORMS if TRANSFORMS.get(name).family == "geometry"]
VALUES = {"black": 0, "white": 255}


def photo_like(height: int = 48, width: int = 40) -> np.ndarray:
    """Smooth in each channel, with different contrast in each."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    channels = [120 + 100 * np.sin(5 * x + 2 * y), 90 + 60 * np.cos(4 * y), 200 * x]
    return np.stack(channels, -1).astype(np.uint8)


def random_picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_the_family():
    assert NAMES == ["rotate", "translate", "scale", "shear", "perspective", "flip", "crop"]
    assert [name for name in NAMES if TRANSFORMS.get(name).random] == ["perspective"]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([name for name in NAMES if TRANSFORMS.get(name).sweep]),
    share=st.floats(0, 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    fill=st.sampled_from(list(FILLS)),
)
def test_any_level_of_any_picture(name, share, shape, fill):
    transform, picture = TRANSFORMS.get(name), random_picture(*shape)
    given = {"fill": fill} if "fill" in transform.parameters else {}
    chain = at_level(transform, transform.sweep.at(share), given)
    before = picture.copy()
    result = chain(picture)
    assert result.shape == shape and result.dtype == np.uint8 and result.flags.c_contiguous
    assert np.array_equal(picture, before) and not np.shares_memory(result, picture)
    assert np.array_equal(chain(np.repeat(picture, 2, axis=1)[:, ::2], key=b"k"), chain(picture, key=b"k"))
    assert np.array_equal(at_level(transform, transform.sweep.start, given)(picture), picture)
    flat = np.full(shape, 255, np.uint8)
    assert (at_level(transform, transform.sweep.at(share))(flat) == 255).all()


# -- rotate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [-4, -3, -2, -1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 7, 28, 224])
@pytest.mark.parametrize("fill", ["edge", "black", "white"])
def test_quarter_turns_are_exact_and_counter_clockwise(turns, size, fill):
    picture = random_picture(size, size)
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
    flat = np.full((31, 31, 1), 90, np.uint8)
    for spec in ("rotate45", "shear45", "scale0.5", "translate:right=0.5,down=0.5", "perspective:distortion=0.6"):
        join = "," if ":" in spec else ":"
        assert parse(f"{spec}{join}fill={fill}")(flat)[0, 0, 0] == value, spec


# -- translate, flip, crop, scale --------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "down"), [(0.25, 0), (-0.25, 0.1), (0.11, -0.3), (1, 1), (0.04, -0.04)])
@pytest.mark.parametrize("fill", FILLS)
def test_translation_moves_whole_pixels(right, down, fill):
    picture = random_picture(20, 12)
    across, below = round(right * 12), round(down * 20)
    filled = {"mode": "edge"} if fill == "edge" else {"constant_values": VALUES[fill]}
    framed = np.pad(picture, ((20, 20), (12, 12), (0, 0)), **filled)
    wanted = framed[20 - below : 40 - below, 12 - across : 24 - across]
    result = parse(f"translate:right={right},down={down},fill={fill}")(picture)
    assert np.array_equal(result, wanted)


def test_flips():
    picture = random_picture(9, 14)
    assert np.array_equal(parse("flip")(picture), picture[:, ::-1])
    assert np.array_equal(parse("flip:axis=vertical")(picture), picture[::-1])
    assert np.array_equal(parse("flip:axis=both")(picture), picture[::-1, ::-1])


def test_what_is_fixed_has_no_severities():
    assert parse("flip").name == "flip:axis=horizontal" and parse("flip") == parse("flip:axis=horizontal")
    for name in ("flip", "flip:axis=vertical", "flip+channel_swap"):
        with pytest.raises(UsageError, match="has no severities"):
            at_severity(name, 3)
    with pytest.raises(UsageError, match="flip has no severities"):
        parse("flip:severity=1")
    with pytest.raises(UsageError, match="axis must be one of horizontal, vertical, both, not '3'"):
        parse("flip3")
    with pytest.raises(ValueError, match="flip has no severities"):
        TRANSFORMS.get("flip").row(3)
    assert at_severity("flip:axis=vertical+rotate", 1).name == "flip:axis=vertical+rotate5"
    assert np.array_equal(TRANSFORMS.get("flip")(random_picture(3, 4)), random_picture(3, 4)[:, ::-1])


@pytest.mark.parametrize(("height", "width"), [(40, 30), (41, 33), (224, 224)])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.33])
def test_a_crop_is_pillows_resize_of_the_middle(height, width, share):
    picture = random_picture(height, width)
    inner = round(share * width), round(share * height)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    middle = Image.fromarray(picture[top : top + inner[1], left : left + inner[0]])
    theirs = np.asarray(middle.resize((width, height), Image.Resampling.BILINEAR))
    assert np.array_equal(parse(f"crop:share={share}")(picture), theirs)


@pytest.mark.parametrize(("height", "width"), [(40, 30), (41, 33), (5, 1)])
@pytest.mark.parametrize("factor", [2, 1.3, 0.8, 0.5, 0.2, 0.05])
@pytest.mark.parametrize("fill", FILLS)
def test_a_zoom_is_pillows_resize_about_the_centre(height, width, factor, fill):
    picture = random_picture(height, width)
    result = parse(f"scale{factor}:fill={fill}")(picture)
    grown = [side + 2 * round(side * (factor - 1) / 2) for side in (height, width)]
    grown = [max(new, 1 if side % 2 else 2) for new, side in zip(grown, (height, width), strict=True)]
    assert all(abs(new - factor * side) <= 2 for new, side in zip(grown, (height, width), strict=True))
    theirs = np.asarray(Image.fromarray(picture).resize(grown[::-1], Image.Resampling.BILINEAR))
    top, left = (grown[0] - height) // 2, (grown[1] - width) // 2
    if factor > 1:
        assert np.array_equal(result, theirs[top : top + height, left : left + width])
    else:
        assert np.array_equal(result[-top : height + top, -left : width + left], theirs)
        border = result[0] if top else result[:, 0]
        assert fill == "edge" or not (top or left) or (border == VALUES[fill]).all()


# -- shear, perspective ------------------------------------------------------------------------------------------


def test_a_shear_leans_to_the_right_and_agrees_with_pillow():
    upright = np.zeros((41, 41, 1), np.uint8)
    upright[:, 20] = 255
    leaning = parse("shear45:fill=black")(upright)[..., 0]
    assert np.array_equal(leaning, np.eye(41, dtype=np.uint8)[::-1] * 255)
    picture = photo_like()
    slope, centre = np.tan(np.radians(20)), 48 / 2
    coefficients = (1, slope, -slope * centre, 0, 1, 0)
    image = Image.fromarray(picture)
    theirs = np.asarray(image.transform((40, 48), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR))
    white = Image.new("L", (40, 48), 255)
    inside = np.asarray(white.transform((40, 48), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR))
    difference = np.abs(parse("shear20")(picture).astype(int) - theirs)[inside == 255]
    assert len(difference) > 1000 and difference.max() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_the_corners_are_where_they_were_drawn(seed):
    """A homography has 8 unknowns; four corners make as many equations."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 300, 2).tolist()
    inner = [(x, y) for x, y in ((-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5))]
    corners = [(x + rng.uniform(-0.2, 0.2) * width, y + rng.uniform(-0.2, 0.2) * height) for x, y in inner]
    rows, right_side = [], []
    for (x, y), (to_x, to_y) in zip(corners, inner, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -to_x * x, -to_x * y], [0, 0, 0, x, y, 1, -to_y * x, -to_y * y]]
        right_side += [to_x, to_y]
    wanted = np.append(np.linalg.solve(rows, right_side), 1)
    matrix = np.array(_to_corners(corners, width, height))
    for x, y in product((0, width / 3, width - 1), (0, height / 3, height - 1)):
        (a, b, c), (d, e, f) = matrix @ (x, y, 1), wanted.reshape(3, 3) @ (x, y, 1)
        np.testing.assert_allclose((a / c, b / c), (d / f, e / f), rtol=1e-6, atol=1e-6)


def test_perspective_keeps_the_corners_within_its_share_and_agrees_with_pillow():
    picture = photo_like(120, 90)
    for seed in range(10):
        result = parse("perspective:distortion=0.3")(picture, seed=seed, key=b"one")
        drawn = generator(seed, b"one", "perspective").random((4, 2)) * 0.15 * (90, 120)
        signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
        corners = np.array([(0, 0), (90, 0), (90, 120), (0, 120)]) + signs * drawn
        m = np.array(_to_corners((corners - 0.5).tolist(), 90, 120))
        shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # Pillow's corners lie at 0, ours at −½
        m = shift @ m @ np.linalg.inv(shift)
        coefficients = (m / m[2, 2]).ravel()[:8].tolist()
        arguments = (90, 120), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
        theirs = np.asarray(Image.fromarray(picture).transform(*arguments)).astype(int)
        inside = np.asarray(Image.new("L", (90, 120), 255).transform(*arguments)) == 255
        assert 0.45 < inside.mean() < 1
        assert np.abs(result - theirs)[inside].max() <= 1


def test_perspective_grows_with_its_level_from_the_same_draw():
    """A small white square in the middle of each quarter stays on the straight way from where it was."""
    picture = np.zeros((200, 200, 1), np.uint8)
    picture[48:53, 48:53] = 255
    places = []
    for level in (0.0, 0.2, 0.4):
        result = at_level(TRANSFORMS.get("perspective"), level)(picture, key=b"one")[..., 0].astype(float)
        places.append(np.array([(result * axis).sum() / result.sum() for axis in np.mgrid[0:200, 0:200]]))
    first, second = places[1] - places[0], places[2] - places[1]
    assert np.hypot(*first) > 1
    assert first @ second / np.hypot(*first) / np.hypot(*second) > 0.9
