"""From a picture file of any kind to uint8 pixels; a file that is seen to be broken is an error, never a guess."""

from __future__ import annotations

import ctypes
import errno
import logging
import re
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import ChunkStream

from hw4fast.data.preprocessing import MAX_PIXELS
from hw4fast.errors import PassingError, UserError
from hw4fast.paths import one_line, readable_file

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")  # all that Pillow may try, commonest first
GREY = ("1", "L", "LA", "La")
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 274, 258, 262, 0  # EXIF's and TIFF's tags
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # undoes each orientation of EXIF 2.32, 4.6.4
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd8])")  # in JPEG, FF00 is data; FF01, FFD0…FFD8 have no length
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
MAX_SCANNED = 20 * MAX_PIXELS  # pixels times scans of a JPEG: 300 empty scans in 3 kB cost 5 s at MAX_PIXELS
FARTHEST_JUMP = 255  # rows that a run-length-coded BMP can skip at once: Pillow makes them all before it looks
PPM_HEADER = re.compile(  # its kind, and two or three numbers with white space or comments before each
    rb"P(?:[14](?:GAP[\d.-]+(?=\s)){2}|[^14][A-Z]*(?:GAP[\d.-]+(?=\s)){3})".replace(b"GAP", rb"(?:\s|#[^\r\n]*[\r\n])+")
)
LONGEST_PPM_HEADER = 2**16  # Pillow reads its comments byte by byte: 10 MB in 4 s
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors reach stderr beside ours


class _Quiet:
    """Keeps Pillow's warnings off stderr while any thread reads: the filters are shared by all threads, so the
    first one in sets them and the last one out puts them back."""

    def __init__(self) -> None:
        self._lock, self._readers, self._saved = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._saved.__exit__(None, None, None)


_quiet = _Quiet()


def as_picture(source: Path | str | bytes | np.ndarray | Image.Image) -> np.ndarray:
    """A file, a file's bytes, a Pillow image or an array, uint8 [h, w] or [h, w, 1 or 3] → uint8 [h, w, 1 or 3].

    A Pillow image is read as its file would be, loaded if it isn't yet, and turned upright as its EXIF says: if you
    have turned it yourself, do so with ImageOps.exif_transpose, which takes that out. Of an animation the frame that it
    is at is read.
    Raises UserError for what `read_picture` refuses, ValueError for an array of another kind.
    """
    if isinstance(source, np.ndarray):
        pixels = source[:, :, None] if source.ndim == 2 else source
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
            raise ValueError(f"a picture is uint8 [h, w] or [h, w, 1 or 3], not {source.dtype} {list(source.shape)}")
        return pixels
    if isinstance(source, Image.Image):
        unread, file = bool(getattr(source, "tile", None)), getattr(source, "fp", None)
        if unread and file is None:
            raise UserError("the image was closed before its pixels were read; call its load() first")
        with _quiet:
            return _read(source, file if unread else None, "the image")
    return read_picture(source)


def read_picture(source: Path | str | bytes) -> np.ndarray:
    """The picture in a file, or in a file's bytes → uint8 [h, w, 1 (grey) or 3 (RGB)], upright as EXIF says.

    Transparent pixels are laid on white. Of an animation the first frame is read. 16-bit grey is scaled to 8
    (65535 → 255). CMYK is converted without its colour profile; palettes become RGB, 1-bit pictures grey.
    Raises UserError for: no such file, a folder, an empty file, another or broken format, a truncated file,
    more than MAX_PIXELS pixels, and 32-bit grey (whose white isn't defined). PassingError when it is not the file's
    fault: no permission, no memory, a disk that fails.
    Not every broken file is seen to be so: a JPEG that has lost bytes in its middle, or its lower part but not its end
    marker, gives pixels, because libjpeg makes up what is missing and Pillow keeps its warning to itself; and in the
    formats without checksums (all but PNG) wrong bytes are mostly wrong pixels.
    """
    if isinstance(source, bytes):
        with _quiet:
            return _decode(BytesIO(source), "the picture")
    path = readable_file(source, "picture")
    with path.open("rb") as file, _quiet:
        return _decode(file, f"'{one_line(path)}'")


def _decode(file: BinaryIO, name: str) -> np.ndarray:
    with _open(file, name) as image:
        return _read(image, file, name)


def _read(image: Image.Image, file: BinaryIO | None, name: str) -> np.ndarray:
    """file: where its pixels are still to be read from, None when they are in memory."""
    try:
        if not all(image.size):
            raise UserError(f"{name} has no pixels ({image.width}×{image.height})")
        if file is not None:
            _check(image, file, name)
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        pixels = _pixels(image, name)
    except UserError:
        raise
    except Exception as error:  # decoders raise almost anything when a file is broken
        what = f"is a broken or truncated {image.format} file" if file else f"can't be read ({image.mode})"
        raise _refused(error, name, what) from None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


def _check(image: Image.Image, file: BinaryIO, name: str) -> None:
    """Before its pixels are read; raises UserError, or OSError for what is broken."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UserError(_too_large(name, f"{width}×{height}"))
    if image.format == "BMP" and FARTHEST_JUMP * width > MAX_PIXELS:
        raise UserError(f"{name} is {width} pixels wide, which no BMP file should be; save it in another format")
    if image.format in ("JPEG", "MPO"):
        _check_scans(file, width * height)
    if image.format == "PNG":
        _check_sums(file)
    if image.format == "TIFF":
        _silence_libtiff()


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Reads the header and no pixels."""
    try:
        begin = file.read(LONGEST_PPM_HEADER)
        if re.match(rb"P[0-6fy]", begin) and not PPM_HEADER.match(begin):
            raise ValueError("its width and height aren't there")
        file.seek(0)
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise UserError(_too_large(name, "far more")) from None
    except Image.UnidentifiedImageError:
        file.seek(0)
        begins = file.read(8)
        kinds = ", ".join(FORMATS)
        raise UserError(f"{name} is no picture that can be read ({kinds}): it begins with {begins!r}") from None
    except Exception as error:  # as above
        raise _refused(error, name, "has a broken header") from None


def _refused(error: Exception, name: str, otherwise: str) -> UserError:
    """A decoder's error in words; `otherwise`: what is wrong with the file where memory and disk are well."""
    if isinstance(error, MemoryError):
        return PassingError(f"{name} doesn't fit into memory; shrink it first")
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # the system's: Pillow's have no number
        return PassingError(f"{name} can't be read: {error.strerror}")
    return UserError(f"{name} {otherwise}: {_said(error)}")


@cache
def _silence_libtiff() -> None:
    """Else it prints what it finds wrong to stderr, from C. Pillow's own module leads to its functions where the system
    lets one see them (not on Windows)."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(Image.core.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _check_sums(file: BinaryIO) -> None:
    """SyntaxError or OSError when a checksum of a PNG's is wrong or its end is missing; Pillow's own reader skips the
    pixels' checksums."""
    position = file.tell()  # Pillow goes on there
    file.seek(len(PNG_SIGNATURE))
    ChunkStream(file).verify()
    file.seek(position)


def _check_scans(file: BinaryIO, pixels: int) -> None:
    """OSError when a JPEG has no end (its tail is missing and zeros stand there, which decode as grey rows), and when
    it goes over its pixels so often that decoding it would hang."""
    file.seek(0)
    data, position, scans = file.read(), 2, 0
    # nearly every whole file: to walk through it would hold Python's lock as long as decoding takes
    if data.endswith(b"\xff\xd9") and data.count(b"\xff\xda") * pixels <= MAX_SCANNED:
        return
    while match := MARKER.search(data, position):
        if match[1][0] == END_OF_IMAGE:
            return
        scans += match[1][0] == START_OF_SCAN
        if scans * pixels > MAX_SCANNED:
            raise OSError(f"more than {scans - 1} scans of its pixels are too many")
        position = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    raise OSError("image file is truncated: it has no end marker")


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    """A loaded image of any mode → uint8 [h, w] or [h, w, 3]."""
    if image.mode.startswith("I;16"):
        return _from_sixteen_bits(image)
    if image.mode == "I" and image.format == "PPM":  # Pillow scales a PGM to 0…65535
        return _scaled(np.asarray(image), 65535)
    if image.mode in ("I", "F"):
        raise UserError(f"{name} has 32 bits per pixel, whose white isn't defined; save it with 8 or 16 bits")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
        return np.asarray(on_white.getchannel("R") if image.mode in GREY else on_white.convert("RGB"))
    mode = "L" if image.mode in GREY else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _from_sixteen_bits(image: Image.Image) -> np.ndarray:
    """Grey of up to 16 bits → uint8 [h, w]; TIFF may say fewer bits, or that 0 is white."""
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    values = np.asarray(image)
    grey = _scaled(values, white)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return grey


def _scaled(values: np.ndarray, white: int) -> np.ndarray:
    """Whole numbers 0…white (≤ 65535) → uint8 0…255, to nearest."""
    return ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 (upright) when there is none or it can't be read."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing, and the pixels are sound
        return 1


def _too_large(name: str, pixels: str) -> str:
    return f"{name} has {pixels} pixels; more than {MAX_PIXELS // 10**6} million aren't decoded: shrink it first"


def _said(error: Exception) -> str:
    return one_line(error) or type(error).__name__
