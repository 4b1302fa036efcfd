"""Picture files from hell: each gives either pixels or one clear line, and nothing on stderr."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hw4fast.data.images import MAX_PIXELS, read_picture
from hw4fast.errors import UserError


@pytest.fixture(autouse=True)
def silence(capfd, recwarn):
    """No picture may print or warn."""
    yield
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    """uint8 [h, w, 3] that JPEG keeps within a few grey levels."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 4, y * 6, 128 + x - y], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes = b"") -> bytes:
    """A PNG from its header fields and unfiltered rows, for what Pillow doesn't write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refused(source, *parts: str) -> str:
    with pytest.raises(UserError) as caught:
        read_picture(source)
    text = str(caught.value)
    assert "\n" not in text and caught.value.__cause__ is None
    for part in parts:
        assert part in text
    return text


# ---- what must come out right


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_lossless_formats_are_exact(kind, tmp_path):
    path = tmp_path / "picture.any"  # the name says nothing
    path.write_bytes(encoded(Image.fromarray(smooth()), kind, **({"lossless": True} if kind == "WEBP" else {})))
    for source in (path, str(path), path.read_bytes()):
        pixels = read_picture(source)
        assert pixels.dtype == np.uint8 and np.array_equal(pixels, smooth())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_jpeg(options):
    pixels = read_picture(encoded(Image.fromarray(smooth()), "JPEG", quality=95, **options))
    assert np.abs(pixels.astype(int) - smooth()).max() < 12


def test_grey_has_one_channel():
    grey = smooth()[..., 0]
    pixels = read_picture(encoded(Image.fromarray(grey), "PNG"))
    assert np.array_equal(pixels, grey[..., None])


def test_cmyk_jpeg():
    """Pure inks at full strength: cyan, magenta, yellow and black must not come out inverted."""
    inks = np.zeros((16, 64, 4), np.uint8)
    for ink in range(4):
        inks[:, 16 * ink : 16 * ink + 16, ink] = 255
    pixels = read_picture(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0)).astype(int)
    centres = pixels[8, 8::16]
    assert np.abs(centres - [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]]).max() < 6


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 1, 128, 129, 257, 32768, 65278, 65535]], np.uint16)
    expected = np.round(values / 257).astype(np.uint8)[..., None]
    assert np.array_equal(read_picture(encoded(Image.fromarray(values), "PNG")), expected)
    assert np.array_equal(read_picture(encoded(Image.fromarray(values), "TIFF")), expected)
    big_endian = Image.frombytes("I;16B", (8, 1), values.astype(">u2").tobytes())
    assert np.array_equal(read_picture(encoded(big_endian, "TIFF")), expected)
    pgm = b"P5 8 1 65535\n" + values.astype(">u2").tobytes()
    assert np.array_equal(read_picture(pgm), expected)


def test_sixteen_bit_tiff_whose_zero_is_white():
    values = np.array([[0, 65535, 32768]], np.uint16)
    tiff = encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert read_picture(tiff).ravel().tolist() == [255, 0, 127]


def test_sixteen_bit_colour():
    values = np.array([0, 0x80FF, 0xFFFF, 0x1234, 0x0100, 0xFE00], ">u2")
    pixels = read_picture(png(2, 1, 16, 2, b"\0" + values.tobytes()))
    assert np.abs(pixels.ravel() - values / 257).max() <= 1


def test_sixteen_bit_transparent_value_is_white():
    values = np.array([[0, 700, 65535]], np.uint16)
    whole = encoded(Image.fromarray(values), "PNG")
    body = b"tRNS" + struct.pack(">H", 700)
    at = whole.index(b"IDAT") - 4
    with_key = whole[:at] + struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body)) + whole[at:]
    assert read_picture(with_key).ravel().tolist() == [0, 255, 255]


def test_one_bit():
    bits = np.array([[True, False, True, True]])
    pixels = read_picture(encoded(Image.fromarray(bits), "PNG"))
    assert pixels.tolist() == [[[255], [0], [255], [255]]]


def test_palette():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    image.putdata([0, 1, 2])
    assert read_picture(encoded(image, "PNG")).tolist() == [[[255, 0, 0], [0, 255, 0], [10, 20, 30]]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour_lies_on_white(kind):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    image.putdata([0, 1, 2])
    pixels = read_picture(encoded(image, kind, transparency=1))
    assert pixels.tolist() == [[[255, 0, 0], [255, 255, 255], [10, 20, 30]]]


def test_palette_with_degrees_of_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([200, 0, 0, 200, 0, 0, 200, 0, 0])
    image.putdata([0, 1, 2])
    pixels = read_picture(encoded(image, "PNG", transparency=bytes([255, 128, 0])))
    assert pixels[0, 0].tolist() == [200, 0, 0] and pixels[0, 2].tolist() == [255, 255, 255]
    assert np.abs(pixels[0, 1].astype(int) - [227, 127, 127]).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_rgba_lies_on_white(kind):
    colours = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [100, 0, 0, 51]]], np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = read_picture(encoded(Image.fromarray(colours), kind, **options)).astype(int)
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[0, 1].tolist() == [0, 0, 0]
    assert np.abs(pixels[0, 2] - [224, 204, 204]).max() <= 1


def test_grey_with_alpha_lies_on_white_and_stays_grey():
    values = np.array([[[0, 0], [0, 255], [100, 128]]], np.uint8)
    pixels = read_picture(encoded(Image.fromarray(values, "LA"), "PNG"))
    assert pixels.shape == (1, 3, 1)
    assert np.abs(pixels.ravel().astype(int) - [255, 0, 177]).max() <= 1


def test_colour_key_of_an_rgb_png():
    picture = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    pixels = read_picture(encoded(Image.fromarray(picture), "PNG", transparency=(1, 2, 3)))
    assert pixels.tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, kind):
    """The stored pixels are `upright` with the orientation's change applied backwards, built from the standard's
    words: where row 0 and column 0 of what is stored lie in the upright picture."""
    upright = smooth(6, 10)
    row0, column0 = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    stored = upright if row0 in ("top", "bottom") else upright.transpose(1, 0, 2)
    stored = stored[::-1] if row0 in ("bottom", "right") else stored
    stored = stored[:, ::-1] if column0 in ("right", "bottom") else stored
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    assert np.array_equal(read_picture(data), upright)


def test_exif_orientation_of_a_jpeg():
    exif = Image.Exif()
    exif[274] = 6  # the camera was held upright
    pixels = read_picture(encoded(Image.fromarray(np.rot90(smooth()).copy()), "JPEG", quality=95, exif=exif))
    assert pixels.shape == smooth().shape
    assert np.abs(pixels.astype(int) - smooth()).max() < 12


def test_broken_exif_is_no_orientation():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12junk"
    pixels = read_picture(encoded(Image.fromarray(smooth()), "JPEG", exif=exif))
    assert pixels.shape == smooth().shape


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    assert np.array_equal(read_picture(data), np.full((6, 8, 3), (255, 0, 0), np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "PPM", "TIFF", "JPEG", "WEBP"])
def test_one_pixel(kind):
    pixels = read_picture(encoded(Image.new("RGB", (1, 1), (200, 200, 200)), kind))
    assert pixels.shape == (1, 1, 3)
    assert np.abs(pixels.astype(int) - 200).max() <= 2


def test_pillows_own_bomb_warning_stays_inside(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 56 - 1)  # Pillow warns above, and refuses above twice that
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(encoded(Image.fromarray(smooth()), "PNG")).shape == (40, 56, 3)


def test_threads_agree_and_leave_the_warning_filters_alone():
    data = [encoded(Image.fromarray(np.roll(smooth(), k, 0)), "PNG") for k in range(20)]
    before, found = list(warnings.filters), {}

    def work(start: int) -> None:
        for k in range(start, 20, 4):
            found[k] = read_picture(data[k])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    assert all(np.array_equal(found[k], np.roll(smooth(), k, 0)) for k in range(20))


# ---- what must be refused in one clear line


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing.png", "there is no picture file", "nothing.png")


def test_folder(tmp_path):
    refused(tmp_path, "is a folder, not a picture file")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    refused(path, "is empty (0 bytes)", "empty.png")


def test_pipe_is_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes on this system")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "is no regular file")


@pytest.mark.parametrize("name", ["zero\0byte.png", "long" * 2000 + ".png"])
def test_impossible_names(name):
    refused(name, "can't be read")


def test_text_named_png(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    refused(path, "notes.png", "JPEG, PNG, GIF", "b'not a pi'")


@pytest.mark.parametrize("start", [b"%PDF-1.7", b"<svg xml", b"%!PS-Adobe-3.0 EPSF-3.0", b"8BPS\0\1", b"\0\0\1\0\1\0"])
def test_formats_that_pillow_may_not_try(start):
    refused(start + bytes(200), "no picture that can be read")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(kind, share, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.picture"
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "cut.picture")


@pytest.mark.parametrize("lost", [1, 2, 3, 50])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_without_its_last_bytes(lost, progressive):
    whole = encoded(Image.fromarray(smooth()), "JPEG", progressive=progressive)
    refused(whole[:-lost], "broken or truncated JPEG")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_whose_tail_is_zeros(share, progressive):
    """An interrupted download into a file of full size."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG", progressive=progressive)
    keep = int(share * len(whole))
    refused(whole[:keep] + bytes(len(whole) - keep), "truncated")


def test_jpeg_with_something_after_its_end():
    whole = encoded(Image.fromarray(smooth()), "JPEG")
    assert read_picture(whole + b"trailer of a phone" + bytes(100)).shape == smooth().shape


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (MAX_PIXELS + 1, 1), (2**31 - 1, 2**31 - 1)])
def test_bomb_is_refused_by_its_header(width, height):
    """There are no pixels in the file: had it tried to decode them, the error would be another."""
    refused(png(width, height, 8, 2), "more than 100 million aren't decoded")


@pytest.mark.parametrize("header", [b"P6 0 5 255\n", b"P6 -4 4 255\n", b"P6 99999999999999999999 1 255\n"])
def test_absurd_dimensions(header):
    refused(header + bytes(64))


def test_png_of_no_width():
    refused(png(0, 7, 8, 2, b"\0" * 7))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_have_no_white(dtype):
    refused(encoded(Image.fromarray(np.ones((3, 3), dtype)), "TIFF"), "32 bits per pixel")


CORPUS = {
    kind: encoded(Image.fromarray(smooth()), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(list(CORPUS)), places=st.lists(st.integers(0, 10**6), max_size=6), data=st.data())
def test_damage_gives_pixels_or_one_line(kind, places, data):
    damaged = bytearray(CORPUS[kind])
    for place in places:
        damaged[place % min(len(damaged), 400)] = data.draw(st.integers(0, 255))
    try:
        pixels = read_picture(bytes(damaged))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.size


def test_pillows_log_stays_off_stderr(tmp_path):
    """In a process of its own: pytest takes the log records away from stderr."""
    samples = struct.pack("<HHIH", 277, 3, 1, 3)  # SamplesPerPixel, a short: 3
    assert CORPUS["TIFF"].count(samples) == 1
    path = tmp_path / "many.tif"
    path.write_bytes(CORPUS["TIFF"].replace(samples, struct.pack("<HHIH", 277, 3, 1, 2048)))
    code = (
        "import sys; from hw4fast.errors import UserError; from hw4fast.data.images import read_picture\n"
        "try: read_picture(sys.argv[1])\nexcept UserError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_every_real_photo_is_read():
    root = os.environ.get("HW4FAST_DATA")
    if not root or not (Path(root) / "photos").is_dir():
        pytest.skip("HW4FAST_DATA names no folder with photos/")
    files = [path for path in Path(root, "photos").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    assert files
    for path in files:
        pixels = read_picture(path)
        assert pixels.shape[2] in (1, 3) and min(pixels.shape[:2]) > 10 and pixels.std() > 1, path
