"""What is left of a picture that was written as JPEG and read again: the bytes that libjpeg-turbo gives, as Pillow
calls it, in a quarter of the time, since no file is made.

Baseline JPEG (ITU-T T.81) as libjpeg's defaults have it: YCbCr, colour at half the resolution both ways (means of
2 × 2, rounded up and down in turn), blocks of 8 × 8 with the last row and column repeated, the transform in integers
("islow"), the standard's tables at a quality, coefficients rounded to the nearest multiple; back the same way, colour
interpolated ("fancy upsampling"; pixels repeated where there are 4 columns or less). Each step rounds as theirs does.
The same bytes on every machine.
"""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from hw4fast.kernels import compiled, isas

LONGEST = 65535  # side of a JPEG


def jpeg(picture: np.ndarray, quality: int, isa: str = "") -> np.ndarray:
    """uint8 [h, w, 1 or 3] → the same shape; quality: 1 … 100. On one thread.

    Raises TypeError for a wrong dtype, ValueError for the rest.
    """
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] not in (1, 3) or max(picture.shape) > LONGEST:
        raise ValueError(f"a picture must be [h, w, 1 or 3], no side above {LONGEST}, not {list(picture.shape)}")
    quality = checked(quality)
    whole = picture.strides[2] == 1 and picture.strides[1] == picture.shape[2]
    source = picture if whole else np.ascontiguousarray(picture)
    output = np.empty(picture.shape, np.uint8)
    compiled().jpeg(source.ctypes.data, source.strides[0], output.ctypes.data, picture.shape, quality, isa)
    return output


def checked(quality: int) -> int:
    """Raises TypeError for what is no whole number, ValueError for one that is no quality."""
    quality = operator.index(quality)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must lie in 1 … 100, not be {quality}")
    return quality


def jpeg_reference(picture: np.ndarray, quality: int) -> np.ndarray:
    """Pillow's."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file)).reshape(picture.shape)


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """Every compiled way to compute it here, fastest first: name → function of (picture, quality)."""
    return {f"cpp-{isa}": partial(jpeg, isa=isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make()` gives (picture, quality). rough: how much neighbours differ, 0 … 255."""

    name: str
    shape: tuple[int, int, int]
    quality: int
    rough: int = 20

    def make(self) -> tuple[np.ndarray, int]:
        rng = np.random.Generator(np.random.PCG64([*self.shape, self.quality, self.rough]))
        steps = rng.integers(-self.rough, self.rough + 1, self.shape)
        ramps = 128 + np.cumsum(steps, 1) // 2 + np.cumsum(steps[::-1], 0) // 2
        return np.abs((ramps + 255) % 510 - 255).astype(np.uint8), self.quality


BENCHMARK_CASES = (Case("224", (224, 224, 3), 15),)


def cases() -> Iterator[Case]:
    """Sides around every block and every vector of blocks, single pixels, all qualities, black beside white."""
    for c in (1, 3):
        for side in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 129):
            yield Case(f"w{side}-{c}", (19, side, c), 30)
            yield Case(f"h{side}-{c}", (side, 21, c), 60)
        for quality in range(1, 101):
            yield Case(f"quality{quality}-{c}", (33, 41, c), quality)
        for rough in (0, 1, 255):
            for quality in (1, 50, 100):
                yield Case(f"rough{rough}-{quality}-{c}", (40, 56, c), quality, rough)


def cost(case: Case) -> tuple[int, int]:
    """(bytes, operations): every value read and written once; per block four transforms of 8 × 8 (some 40 operations a
    line) and four a coefficient, half as many blocks of colour as of brightness, 25 operations a pixel for colour."""
    pixels, colours = case.shape[0] * case.shape[1], case.shape[2] == 3
    per_pixel = (4 * 40 / 8 + 4) * (1.5 if colours else 1) + (25 if colours else 0)
    return 2 * int(np.prod(case.shape)), round(pixels * per_pixel)
