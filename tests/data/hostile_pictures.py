"""Small pictures of every kind that is read, damage to them, and pictures that are hostile on purpose."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from tests.damage import damaged


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    """uint8 [h, w, 3] with some noise in it."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 9, (height, width, 3))
    return (np.stack([x * 4, y * 6, 128 + x - y], -1) + noise).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    width: int, height: int, depth: int, colour: int, data: bytes, before: bytes = b"", interlace: int = 0
) -> bytes:
    """A PNG from its header fields and compressed rows, for what Pillow doesn't write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    parts = chunk(b"IHDR", header), before, chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def interlaced_png() -> bytes:
    """Adam7, 8×8 grey: seven pictures of 1, 1, 2, 4, 8, 16 and 32 pixels."""
    passes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))
    rows = b"".join((b"\0" + bytes(range(width))) * height for width, height in passes)
    return png(8, 8, 8, 0, zlib.compress(rows), interlace=1)


@cache
def corpus() -> dict[str, bytes]:
    """Name → file."""
    colour = Image.fromarray(smooth())
    grey, palette, cmyk = colour.convert("L"), colour.convert("P"), colour.convert("CMYK")
    rgba = colour.convert("RGBA")
    rgba.putalpha(grey)
    deep = Image.fromarray(smooth()[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[274], exif[305] = 6, "software"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)], "duration": 40}
    made = {
        "jpeg": encoded(colour, "JPEG"),
        "jpeg progressive": encoded(colour, "JPEG", progressive=True, exif=exif),
        "jpeg cmyk": encoded(cmyk, "JPEG", icc_profile=profile),
        "jpeg grey": encoded(grey, "JPEG", restart_marker_rows=1),
        "jpeg mpo": encoded(colour, "MPO", save_all=True, append_images=[colour]),
        "png": encoded(colour, "PNG", icc_profile=profile, exif=exif),
        "png rgba": encoded(rgba, "PNG"),
        "png palette": encoded(palette, "PNG", transparency=1),
        "png deep": encoded(deep, "PNG"),
        "png one bit": encoded(colour.convert("1"), "PNG"),
        "png animated": encoded(colour, "PNG", **frames),
        "png interlaced": interlaced_png(),
        "gif": encoded(palette, "GIF", transparency=3),
        "gif animated": encoded(colour, "GIF", **frames),
        "bmp": encoded(colour, "BMP"),
        "bmp palette": encoded(palette, "BMP"),
        "bmp one bit": encoded(colour.convert("1"), "BMP"),
        "bmp runs": bmp_runs(8, 4, b"".join(bytes([5, i, 0, 3, 1, 2, 3, 0, 0, 0]) for i in range(4)) + b"\0\1"),
        "ppm": encoded(colour, "PPM"),
        "pgm deep": b"P5\n# deep\n8 4 65535\n" + bytes(range(64)),
        "ppm plain": b"P3 2 2 255\n" + b"1 2 3 4 5 6 7 8 9 10 11 12 ",
        "pbm": encoded(colour.convert("1"), "PPM"),
        "webp": encoded(colour, "WEBP", exif=exif, icc_profile=profile),
        "webp lossless": encoded(rgba, "WEBP", lossless=True),
        "webp animated": encoded(colour, "WEBP", **frames),
        "tiff many": encoded(colour, "TIFF", **frames),
        "tiff deep": encoded(deep, "TIFF"),
        "tiff cmyk": encoded(cmyk, "TIFF", icc_profile=profile),
        "tiff palette": encoded(palette, "TIFF"),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"tiff {compression}"] = encoded(colour, "TIFF", compression=compression)
    made["tiff group4"] = encoded(colour.convert("1"), "TIFF", compression="group4")
    return made


def damaged_picture(number: int) -> tuple[str, bytes]:
    """The picture of that number: what it was, and its bytes. Half the damaged PNGs have right checksums again."""
    rng = np.random.Generator(np.random.PCG64([number, 1]))
    names, files = list(corpus()), list(corpus().values())
    which = int(rng.integers(len(names)))
    data = damaged(files[which], files, rng)
    return names[which], _summed(data) if rng.random() < 0.5 else data


def _summed(data: bytes) -> bytes:
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, place = data[:8], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if place + 12 + length > len(data):
            break
        out += chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length])
        place += 12 + length
    return out + data[place:]


# -- on purpose --------------------------------------------------------------------------------------------------


def jpeg_of_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG that goes over its pixels again and again, with nothing to say of them."""
    whole = bytearray(encoded(Image.new("L", (64, 64), 90), "JPEG", progressive=True))
    frame = whole.index(b"\xff\xc2")
    whole[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    last = whole.rindex(b"\xff\xda")
    length = int.from_bytes(whole[last + 2 : last + 4], "big")
    return bytes(whole[:-2] + whole[last : last + 2 + length] * scans + b"\xff\xd9")


def bmp_runs(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of 8 bits with run lengths."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + bytes(range(256)) * 4 + runs


def zeros(row: int, rows: int) -> bytes:
    """Compressed."""
    packer = zlib.compressobj()
    return b"".join(packer.compress(bytes(row)) for _ in range(rows)) + packer.flush()


def tags(count: int, size: int) -> bytes:
    """A TIFF, or the body of EXIF, whose tags all claim the same bytes: `count` times `size` of them."""
    known = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64}
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in known.items()]
    entries += [struct.pack("<HHII", tag, 2, size, 8) for tag in range(1000, 1000 + count)]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + size) + bytes(size) + directory


def webp_of_canvas(side: int) -> bytes:
    data = bytearray(corpus()["webp animated"])
    place = data.index(b"VP8X") + 12
    data[place : place + 6] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


ROW = zlib.compress(bytes(9 * 8))
HOSTILE = {  # name → (how it is made, what is said of it; "" where it is answered)
    "JPEG of 10,000 scans": (lambda: jpeg_of_scans(10_000, 9_999, 10_000), "more than 20 scans of its pixels"),
    "JPEG of 100 scans, small": (lambda: jpeg_of_scans(500, 400, 100), ""),
    "BMP that skips 2.5 GB": (lambda: bmp_runs(10**7, 10, b"\0\2\0\xff" * 4), "pixels wide, which no BMP file"),
    "BMP that skips a little": (lambda: bmp_runs(10, 10, b"\0\2\0\x03" * 2 + b"\0\1"), "broken or truncated BMP"),
    "PPM of a long comment": (lambda: b"P6 #" + b"x" * 10**7 + b"\n1 1 255 abc", "its width and height aren't there"),
    "PPM of many comments": (lambda: b"P6 " + b"#\n" * 10**7 + b"1 1 255 abc", "its width and height aren't there"),
    "PPM of a long number": (lambda: b"P6 " + b"9" * 10**7 + b" 1 255 abc", "broken header"),
    "PPM with comments": (lambda: b"P6 # a\n# b\n1 #c\n1 # d\n255 abc", ""),
    "TIFF whose tags overlap": (lambda: tags(20_000, 2**20), ""),
    "PNG whose EXIF tags overlap": (lambda: png(8, 8, 8, 0, ROW, chunk(b"eXIf", tags(5_000, 2**20))), ""),
    "WEBP whose EXIF tags overlap": (lambda: encoded(Image.new("RGB", (8, 8)), "WEBP", exif=tags(5_000, 2**20)), ""),
    "PNG of texts": (lambda: png(8, 8, 8, 0, ROW, chunk(b"zTXt", b"a\0\0" + zeros(2**20, 1)) * 200), "broken header"),
    "PNG of a profile": (lambda: png(8, 8, 8, 0, ROW, chunk(b"iCCP", b"a\0\0" + zeros(2**20, 256))), "broken header"),
    "PNG with more rows": (lambda: png(8, 8, 8, 0, zeros(2**20, 256)), ""),
    "PNG at the limit": (lambda: png(10_000, 10_000, 8, 0, zeros(10_001, 10_000)), ""),
    "PNG over the limit": (lambda: png(10_000, 10_001, 8, 6, zeros(40_001, 10)), "more than 100 million"),
    "WEBP over the limit": (lambda: webp_of_canvas(16_000), "more than 100 million"),
}  # fmt: skip
