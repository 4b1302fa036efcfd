"""Mistakes on a picture's way to the net, against Pillow, torch's definition and the card."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hw4fast.data.preprocessing import PRESETS, Preprocessing
from hw4fast.errors import UsageError
from hw4fast.transforms import TRANSFORMS, parse

USUAL = replace(PRESETS["imagenet"], crop=(28, 32), resize_size=40)
NAMES = [name for name in TRANSFORMS if TRANSFORMS.get(name).reads]


def photo_like(height=77, width=101, channels=3) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] / height
    waves = [127 + 120 * np.sin(9 * x + 5 * y + k) * np.cos(6 * y - k) for k in range(channels)]
    return np.stack(waves, -1).astype(np.uint8)


def spoiled(spec: str, picture: np.ndarray, preprocessing: Preprocessing = USUAL) -> np.ndarray:
    return parse(spec)(preprocessing.fit(picture), decoded=picture, preprocessing=preprocessing)


def test_these_are_the_ones_that_read():
    assert NAMES == ["interpolation", "framing", "normalisation", "reencode", "thumbnail"]


@pytest.mark.parametrize("spec", [f"interpolation:kind={kind}" for kind in ("nearest", "bicubic", "lanczos")])
def test_another_filter_is_that_of_the_preprocessing(spec):
    picture = photo_like()
    wanted = replace(USUAL, interpolation=spec.rpartition("=")[2]).fit(picture)
    assert np.array_equal(spoiled(spec, picture), wanted)
    assert not np.array_equal(wanted, USUAL.fit(picture))


def test_the_own_filter_changes_nothing():
    picture = photo_like()
    assert np.array_equal(spoiled("interpolation:kind=bilinear", picture), USUAL.fit(picture))


def test_without_antialiasing_it_is_what_torch_does_by_itself():
    torch = pytest.importorskip("torch")
    picture = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (200, 150, 3), np.uint8)
    size, (top, left, height, width) = USUAL.places(200, 150)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    theirs = torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0]
    theirs = theirs[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()
    assert np.abs(spoiled("interpolation", picture) - theirs).max() <= 1
    assert np.abs(spoiled("interpolation", picture).astype(int) - USUAL.fit(picture)).max() > 50


def test_framings_show_other_parts():
    picture = photo_like()
    stretched = np.asarray(Image.fromarray(picture).resize((32, 28), Image.Resampling.BILINEAR))
    assert np.array_equal(spoiled("framing", picture), stretched)
    tight = replace(USUAL, resize_size=32).fit(picture)
    assert np.array_equal(spoiled("framing:kind=tight", picture), tight)
    assert np.array_equal(spoiled("framing:kind=crop-first", picture), picture[24:52, 34:66])
    small = photo_like(10, 12)
    enlarged = np.asarray(Image.fromarray(small).resize((32, 28), Image.Resampling.BILINEAR))
    assert np.array_equal(spoiled("framing:kind=crop-first", small), enlarged)


@pytest.mark.parametrize("mode", ["RGB", "BGR", "L"])
@pytest.mark.parametrize(("kind", "scale", "shift"), [("none", 1.0, 0.0), ("half", 2.0, -1.0)])
def test_a_wrong_normalisation_gives_the_net_those_numbers(mode, kind, scale, shift):
    count = 1 if mode == "L" else 3
    card = Preprocessing(mode, (20, 20), (0.5, 0.4, 0.3)[:count], (0.2, 0.25, 0.3)[:count])
    picture = photo_like(20, 20, count)
    got = card.normalise(spoiled(f"normalisation:kind={kind}", picture, card)[None])[0]
    wanted = picture.transpose(2, 0, 1) / 255.0 * scale + shift
    wanted = wanted[::-1] if mode == "BGR" else wanted
    reachable = [(v - np.array(card.mean)) / np.array(card.std) for v in (0, 1)]
    wanted = np.clip(wanted, *(r[:, None, None] for r in reachable))
    assert np.abs(got - wanted).max() <= 0.5 / 255 / 0.2 + 1e-5  # half a grey level


def test_reencoding_is_pillows_at_the_pictures_own_size(tmp_path):
    picture = photo_like()
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=30)
    wanted = USUAL.fit(np.asarray(Image.open(tmp_path / "a.jpg")))
    assert np.array_equal(spoiled("reencode30", picture), wanted)


def test_a_thumbnail_has_fewer_pixels_and_a_small_picture_stays():
    picture = photo_like()
    small = np.asarray(Image.fromarray(picture).resize((26, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(spoiled("thumbnail20", picture), USUAL.fit(small))
    assert np.array_equal(spoiled("thumbnail77", picture), USUAL.fit(picture))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 90, 1), (60, 60, 3)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_any_picture_comes_to_the_nets_size(name, shape, mode):
    count = 1 if mode == "L" else 3
    card = Preprocessing(mode, (28, 28), (0.5,) * count, (0.25,) * count, "shorter-side", 30)
    picture = photo_like(*shape)
    before = picture.copy()
    assert spoiled(name, picture, card).shape == (28, 28, count)
    assert np.array_equal(picture, before)


def test_it_can_only_stand_first_and_needs_the_picture_as_it_was_decoded():
    picture = photo_like()
    with pytest.raises(UsageError, match="thumbnail is about how a picture is read: it can only stand first"):
        parse("blur3+thumbnail20")
    with pytest.raises(UsageError, match="thumbnail20 is about how a picture is read: it needs one as it was decoded"):
        parse("thumbnail20")(USUAL.fit(picture))
    blurred = parse("blur3")(spoiled("thumbnail20", picture))
    assert np.array_equal(spoiled("thumbnail20+blur3", picture), blurred)
