"""Preprocessing against torchvision, which it must equal to the bit; its record; every mistake."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode, pil_to_tensor

from hw4fast.data.preprocessing import COLOUR_MODES, RESAMPLING, Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = Preprocessing(mode="RGB", crop=(24, 32), mean=MEAN, std=STD)
CROPPED = replace(PLAIN, crop=(24, 31), resize="shorter-side", resize_size=37)
SIZES = ((1, 1), (2, 90), (91, 3), (31, 24), (37, 37), (38, 37), (50, 75), (128, 127), (333, 200))  # width, height


def picture(size: tuple[int, int], mode: str) -> Image.Image:
    rng = np.random.Generator(np.random.PCG64(size))
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).reshape(image.height, image.width, -1)


def torchvision_chain(preprocessing: Preprocessing) -> tuple[v2.Compose, v2.Compose]:
    """(to uint8 of the network's size, to its input) as torchvision has them."""
    mode = InterpolationMode(preprocessing.interpolation)
    if preprocessing.resize == "stretch":
        resize = [v2.Resize(preprocessing.crop, mode)]
    else:
        resize = [v2.Resize(preprocessing.resize_size, mode), v2.CenterCrop(preprocessing.crop)]
    turn = [lambda tensor: tensor.flip(0)] if preprocessing.mode == "BGR" else []
    end = [v1.ToTensor(), *turn, v1.Normalize(preprocessing.mean, preprocessing.std)]
    return v2.Compose(resize), v2.Compose([*resize, *end])


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("interpolation", RESAMPLING)
@pytest.mark.parametrize("base", [PLAIN, CROPPED], ids=["stretch", "shorter-side"])
@pytest.mark.parametrize("mode", COLOUR_MODES)
def test_it_is_torchvisions_to_the_bit(mode, base, interpolation, size):
    channels = COLOUR_MODES[mode]
    preprocessing = replace(base, mode=mode, mean=MEAN[:channels], std=STD[:channels], interpolation=interpolation)
    image = picture(size, mode)
    fitted, normalised = torchvision_chain(preprocessing)
    ours = preprocessing.fit(as_array(image))
    assert ours.shape == (*preprocessing.crop, channels) and ours.dtype == np.uint8
    assert np.array_equal(ours.transpose(2, 0, 1), pil_to_tensor(fitted(image)).numpy())
    batch = preprocessing.normalise(ours[None])
    assert batch.dtype == np.float32 and batch.flags.c_contiguous
    assert np.array_equal(batch[0], normalised(image).numpy())


@pytest.mark.parametrize(("given", "wanted"), [("L", "RGB"), ("RGB", "L")])
def test_colours_are_converted_as_pillow_does(given, wanted):
    channels = COLOUR_MODES[wanted]
    preprocessing = replace(PLAIN, mode=wanted, mean=MEAN[:channels], std=STD[:channels])
    image = picture((40, 30), given)
    expected = as_array(image.convert(wanted).resize((32, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(preprocessing.fit(as_array(image)), expected)


def test_a_picture_of_the_right_size_is_left_as_it_is():
    image = as_array(picture((32, 24), "RGB"))
    before = image.copy()
    assert np.array_equal(PLAIN.fit(image), before) and np.array_equal(image, before)


def test_normalise_batches():
    batch = np.stack([as_array(picture((32, 24), "RGB")), np.full((24, 32, 3), 255, np.uint8)])
    one_by_one = np.concatenate([PLAIN.normalise(batch[i : i + 1]) for i in range(2)])
    assert np.array_equal(PLAIN.normalise(batch), one_by_one) and one_by_one.shape == (2, 3, 24, 32)
    assert PLAIN.normalise(batch[:0]).shape == (0, 3, 24, 32)
    assert np.allclose(one_by_one[1, :, 0, 0], [(1 - m) / s for m, s in zip(MEAN, STD, strict=True)])


@pytest.mark.parametrize("value", [PLAIN, CROPPED, replace(PLAIN, mode="L", mean=(0.0,), std=(1.0,))])
def test_json_and_back(value):
    assert Preprocessing.from_json(json.loads(json.dumps(value.to_json()))) == value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "CMYK"}, "mode must be one of"),
        ({"interpolation": "hamming"}, "interpolation must be one of"),
        ({"resize": "pad"}, "resize must be"),
        ({"resize": "shorter-side"}, "resize_size goes with"),
        ({"resize_size": 40}, "resize_size goes with"),
        ({"resize": "shorter-side", "resize_size": 31}, "no larger than resize_size"),
        ({"resize": "shorter-side", "resize_size": 40.0}, "whole numbers"),
        ({"crop": (0, 5)}, "positive"),
        ({"crop": (5, -1)}, "positive"),
        ({"crop": (150_000, 150_000)}, "at most 3125000 pixels"),
        ({"crop": (3_125_001, 1)}, "at most 3125000 pixels"),
        ({"resize": "shorter-side", "resize_size": 10_001}, "resize_size 10001 at most 10000"),
        ({"crop": (5,)}, "two whole numbers"),
        ({"crop": (5, 5.0)}, "two whole numbers"),
        ({"crop": (True, 5)}, "two whole numbers"),
        ({"mean": (0.5,)}, "3 values each"),
        ({"std": (0.5, 0.5)}, "3 values each"),
        ({"std": (0.5, 0.5, 0.0)}, "std positive"),
        ({"std": (0.5, 0.5, -0.5)}, "std positive"),
        ({"mean": (0.5, 0.5, float("nan"))}, "finite"),
        ({"std": (0.5, 0.5, float("inf"))}, "finite"),
        ({"mean": (0.5, 0.5, "0.5")}, "finite"),
    ],
    ids=str,
)
def test_every_mistake(change, words):
    with pytest.raises(ValueError, match=words):
        replace(PLAIN, **change)


@pytest.mark.parametrize(
    "edit",
    [
        lambda value: value.pop("mode"),
        lambda value: value.pop("crop"),
        lambda value: value.update(flip=True),
        lambda value: value.update(crop=28),
        lambda value: value.update(crop="28"),
        lambda value: value.update(mean=None),
        lambda value: value.update(mode=["L"]),
        lambda value: value.update(std=[1, 1]),
    ],
)
def test_a_broken_record(edit):
    value = PLAIN.to_json()
    edit(value)
    with pytest.raises(ValueError, match="not a preprocessing record"):
        Preprocessing.from_json(value)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((1, 5, 5, 3), np.uint8),
        np.zeros((5, 5, 3), np.float32),
    ],
    ids=lambda array: f"{array.dtype}-{array.ndim}",
)
def test_what_is_no_picture(array):
    with pytest.raises(ValueError, match="a picture is uint8"):
        PLAIN.fit(array)


def test_too_long_and_thin():
    with pytest.raises(ValueError, match="1×80000 pixels are too long and thin"):
        CROPPED.fit(np.zeros((80_000, 1, 3), np.uint8))


def test_the_largest_sizes():
    assert replace(PLAIN, crop=(3_125_000, 1)).crop == (3_125_000, 1)
    assert replace(CROPPED, resize_size=10_000).resize_size == 10_000
