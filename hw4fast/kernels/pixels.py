"""What changes each pixel by itself: brightness and saturation, a veil, snow, tables.

Brightness and saturation are ImageNet-C's: value or saturation of the hexcone model (A. R. Smith, 1978) changed, hue
kept. With V the greatest and m the least of a pixel's three numbers in 0 … 1 and S = (V − m) / V:
    value        V' = clip(V + offset): every number × V' / V (black becomes the grey V')
    saturation   S' = clip(S × factor + offset): V − (V − number) × S' / S (of grey the hue is red: V, V (1 − S') twice)
so no angle is computed. All are rounded down, as the published code's cast to uint8 does; in float32 whose products
and sums are never fused, within 1 grey level of the exact value: the same bytes on every machine. `*_reference` are in
float64 and not rounded.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hw4fast.kernels import compiled, isas


def add_value(picture: np.ndarray, offset: float, isa: str = "") -> np.ndarray:
    """uint8 [..., 3] → the same shape, brighter by `offset` (−1 … 1, of the range from black to white).

    Raises TypeError for a wrong dtype, ValueError for a wrong shape or an offset that is no number.
    """
    return _changed(picture, False, 1.0, offset, isa)


def scale_saturation(picture: np.ndarray, factor: float, offset: float = 0.0, isa: str = "") -> np.ndarray:
    """uint8 [..., 3] → the same shape, saturation × factor + offset. Raises as `add_value`."""
    return _changed(picture, True, factor, offset, isa)


def _changed(picture: np.ndarray, saturates: bool, factor: float, offset: float, isa: str) -> np.ndarray:
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    if not picture.ndim or picture.shape[-1] != 3:
        raise ValueError(f"a picture must be [..., 3], not {list(picture.shape)}")
    source = np.ascontiguousarray(picture)
    output = np.empty(picture.shape, np.uint8)
    compiled().hsv(source.ctypes.data, output.ctypes.data, source.size // 3, saturates, factor, offset, isa)
    return output


def add_value_reference(picture: np.ndarray, offset: float) -> np.ndarray:
    """float64, not rounded, pixel by pixel through Python's colorsys."""

    def change(pixel: np.ndarray) -> np.ndarray:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
        return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, min(max(value + offset, 0), 1)), np.float64)

    return np.apply_along_axis(change, -1, picture) if picture.size else picture.astype(np.float64)


def scale_saturation_reference(picture: np.ndarray, factor: float, offset: float = 0.0) -> np.ndarray:
    """float64, not rounded, pixel by pixel through Python's colorsys."""

    def change(pixel: np.ndarray) -> np.ndarray:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
        wanted = min(max(saturation * factor + offset, 0), 1)
        return 255 * np.array(colorsys.hsv_to_rgb(hue, wanted, value), np.float64)

    return np.apply_along_axis(change, -1, picture) if picture.size else picture.astype(np.float64)


def veil(
    picture: np.ndarray,
    cover: np.ndarray | None,
    over: np.ndarray | Sequence[float],
    kept: float = 1.0,
    shadow: float = 0.0,
    amount: float = 1.0,
    isa: str = "",
) -> np.ndarray:
    """value · (kept − shadow · cover) + amount · cover · over, clipped to 0 … 255.

    picture: uint8 [h, w, 1 or 3]. cover: float32 [h, w], how thick the veil is; 1 everywhere if None. over: its colour,
    a number per channel in grey levels; or a picture of its own, uint8 [h, w, c], and then there are no cover and no
    shadow.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape or a number that is none.
    """
    source, c = _checked(picture)
    if cover is not None:
        _check(cover, "cover", np.float32, picture.shape[:2])
    layer, colour = (over, []) if isinstance(over, np.ndarray) and over.ndim == 3 else (None, [float(x) for x in over])
    if layer is not None:
        _check(layer, "a layer", np.uint8, picture.shape)
    if layer is None and len(colour) != c:
        raise ValueError(f"the colour must have {c} numbers, not {len(colour)}")
    cover, layer = (None if a is None else np.ascontiguousarray(a) for a in (cover, layer))
    addresses = (0 if a is None else a.ctypes.data for a in (cover, layer))
    output = np.empty(picture.shape, np.uint8)
    pixels = picture.shape[0] * picture.shape[1]
    compiled().veil(source.ctypes.data, output.ctypes.data, pixels, c, *addresses, colour, kept, shadow, amount, isa)
    return output


def veil_reference(
    picture: np.ndarray, cover: np.ndarray | None, over: object, kept: float, shadow: float, amount: float
) -> np.ndarray:
    thick = np.ones((*picture.shape[:2], 1)) if cover is None else cover[..., None].astype(np.float64)
    return np.clip(picture * (kept - shadow * thick) + amount * thick * np.asarray(over, np.float64), 0, 255)


def snowed(picture: np.ndarray, flakes: np.ndarray, kept: float, isa: str = "") -> np.ndarray:
    """value · kept + (1 − kept) · max(value, 1.5 · luma + 127.5) + flakes + flakes turned by 180°, clipped to 0 … 255:
    ImageNet-C's snow. picture: uint8 [h, w, 1 or 3]; flakes: uint8 [h, w]. Raises as `veil` does."""
    source, c = _checked(picture)
    _check(flakes, "flakes", np.uint8, picture.shape[:2])
    flakes = np.ascontiguousarray(flakes)
    output = np.empty(picture.shape, np.uint8)
    compiled().snow(source.ctypes.data, output.ctypes.data, flakes.size, c, flakes.ctypes.data, kept, isa)
    return output


def snowed_reference(picture: np.ndarray, flakes: np.ndarray, kept: float) -> np.ndarray:
    image = picture.astype(np.float64)
    luma = image if image.shape[2] == 1 else image @ np.array([[0.299], [0.587], [0.114]])
    whitened = kept * image + (1 - kept) * np.maximum(image, 1.5 * luma + 127.5)
    return np.clip(whitened + flakes[..., None] + flakes[::-1, ::-1, None].astype(float), 0, 255)


def look_up(picture: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Value v of channel k becomes tables[k, v]. picture: uint8 [h, w, 1 or 3]; tables: uint8 [c, 256], or [256] for
    all channels. Raises as `veil` does."""
    source, c = _checked(picture)
    tables = np.ascontiguousarray(np.broadcast_to(tables, (c, 256)))
    if tables.dtype != np.uint8:
        raise TypeError(f"tables must be uint8, not {tables.dtype}")
    output = np.empty(picture.shape, np.uint8)
    pixels = picture.shape[0] * picture.shape[1]
    compiled().look_up(source.ctypes.data, output.ctypes.data, pixels, c, tables.ctypes.data)
    return output


def _check(array: np.ndarray, name: str, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype)}, not {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must be {list(shape)}, not {list(array.shape)}")


def _checked(picture: np.ndarray) -> tuple[np.ndarray, int]:
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"a picture must be [h, w, 1 or 3], not {list(picture.shape)}")
    return np.ascontiguousarray(picture), picture.shape[2]


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """Every compiled way to compute it here, fastest first: name → function of (picture, factor, offset) that scales
    saturations."""
    return {f"cpp-{isa}": partial(scale_saturation, isa=isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make()` gives (picture, factor, offset)."""

    name: str
    shape: tuple[int, ...]
    factor: float
    offset: float

    def make(self) -> tuple[np.ndarray, float, float]:
        rng = np.random.Generator(np.random.PCG64([*self.shape, 3]))
        picture = rng.integers(0, 256, self.shape, np.uint8)
        picture[::5] = picture[::5, ..., :1]  # grey
        picture[::11] = 0
        return picture, self.factor, self.offset


BENCHMARK_CASES = (Case("224", (224, 224, 3), 2.0, 0.0),)


def cases() -> Iterator[Case]:
    """Pixels around every vector, factors that grey, keep and overdo."""
    for n in (0, 1, 2, 15, 16, 17, 63, 64, 65, 129):
        for factor, offset in ((0.3, 0.0), (1.0, 0.0), (5.0, 0.1), (20.0, 0.2), (0.0, 0.0), (1.0, -0.4)):
            yield Case(f"n{n}-{factor}-{offset}", (n, 3), factor, offset)


def cost(case: Case) -> tuple[int, int]:
    """(bytes, operations): every value read and written once; some 20 operations per pixel."""
    values = int(np.prod(case.shape))
    return 2 * values, 20 * values // 3
