"""Pillow images: the same pixels as their files, the same errors."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from hw4fast.data import images
from hw4fast.data.images import as_picture, read_picture
from hw4fast.errors import UserError
from tests.data.hostile_pictures import corpus, encoded, jpeg_of_scans, smooth


def opened(data: bytes) -> Image.Image:
    """Its header is read, no pixels."""
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("kind", corpus())
def test_it_is_read_as_its_file(kind):
    image, expected = opened(corpus()[kind]), read_picture(corpus()[kind])
    for _ in range(2):  # the second time it is loaded
        assert np.array_equal(as_picture(image), expected)


def with_orientation(orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(Image.fromarray(smooth(6, 10)), kind, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_it_is_turned_upright_once(orientation, kind):
    data = with_orientation(orientation, kind)
    upright = read_picture(data)
    assert upright.shape == ((6, 10, 3) if orientation < 5 else (10, 6, 3))
    assert np.array_equal(as_picture(opened(data)), upright)
    assert np.array_equal(as_picture(ImageOps.exif_transpose(opened(data))), upright)
    assert np.array_equal(as_picture(opened(data).copy()), upright)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF"])  # a WEBP doesn't open
def test_a_truncated_file_is_one_line(kind):
    whole = encoded(Image.fromarray(smooth(90, 120)), kind)
    with pytest.raises(UserError, match="the image is a broken or truncated") as caught:
        as_picture(opened(whole[: int(0.8 * len(whole))]))
    assert "\n" not in str(caught.value) and caught.value.__cause__ is None


def test_what_a_file_is_refused_for(monkeypatch):
    whole = encoded(Image.fromarray(smooth(90, 120)), "JPEG")
    with pytest.raises(UserError, match="truncated: it has no end marker"):
        as_picture(opened(whole[:2000] + bytes(len(whole) - 2000)))
    with pytest.raises(UserError, match="scans of its pixels are too many"):
        as_picture(opened(jpeg_of_scans(5000, 5000, 300)))
    monkeypatch.setattr(images, "MAX_PIXELS", 90 * 120 - 1)
    with pytest.raises(UserError, match="the image has 120×90 pixels"):
        as_picture(opened(whole))
    loaded = opened(whole)
    loaded.load()
    assert as_picture(loaded).shape == (90, 120, 3)  # it is in memory already


def test_a_closed_image():
    with opened(encoded(Image.fromarray(smooth()), "PNG")) as image:
        pass
    with pytest.raises(UserError, match=r"was closed before its pixels were read; call its load\(\) first"):
        as_picture(image)


def test_an_image_in_memory_that_can_not_be_read(monkeypatch):
    for size in ((0, 0), (3, 0)):
        with pytest.raises(UserError, match=f"the image has no pixels \\({size[0]}×0\\)"):
            as_picture(Image.new("RGB", size))

    def no_way(*_):
        raise ValueError("conversion not supported")

    monkeypatch.setattr(images, "_pixels", no_way)
    with pytest.raises(UserError, match=r"the image can't be read \(HSV\): conversion not supported"):
        as_picture(Image.new("HSV", (2, 2)))
