"""Random numbers from counters, and pictures with noise on them.

Word k of counter i under a key is philox4x32-10 (J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011): no state, no order, so that any part can be drawn anywhere. Normal deviates are Box and Muller's (1958), in
float32; a Poisson variable is drawn from an alias table (A. J. Walker 1977) of its grey level. The same bytes on every
instruction set: products and sums are never fused.

What ImageNet-C does to a picture x of 0 … 255 (D. Hendrycks and T. Dietterich, ICLR 2019), then rounded down:
    gaussian_noise  x + 255 · std · N(0, 1)          impulse_noise  black or white with probability `amount`
    speckle_noise   x + x · std · N(0, 1)            shot_noise     Poisson(photons · x / 255) · 255 / photons
each value (not pixel) for itself, clipped to 0 … 255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from hw4fast.kernels import compiled, isas

KINDS = ("gaussian", "speckle", "impulse", "shot", "normal", "uniform")  # csrc/noise.cpp counts them
BLOCK = 16  # counters; their 64 words are values one after the other: word 0 of all 16, word 1, …
MOST_PHOTONS = 600


def gaussian_noise(picture: np.ndarray, std: float, key: int, isa: str = "") -> np.ndarray:
    """picture: uint8, any shape. std: standard deviation, where black is 0 and white 1. key: 64 bits.
    Raises TypeError for another dtype, ValueError for a std that is negative or not finite."""
    return _noisy("gaussian", picture, 255 * std, key, isa)


def speckle_noise(picture: np.ndarray, std: float, key: int, isa: str = "") -> np.ndarray:
    """As `gaussian_noise`, with a standard deviation of std times the value itself."""
    return _noisy("speckle", picture, std, key, isa)


def impulse_noise(picture: np.ndarray, amount: float, key: int, isa: str = "") -> np.ndarray:
    """amount: the share of values that become 0 or 255, each with the same probability; 0 … 1."""
    return _noisy("impulse", picture, amount, key, isa)


def shot_noise(picture: np.ndarray, photons: float, key: int, isa: str = "") -> np.ndarray:
    """photons: that a white value stands for, in (0, MOST_PHOTONS]; the fewer, the more noise."""
    if not 0 < photons <= MOST_PHOTONS:
        raise ValueError(f"photons must lie in 0 … {MOST_PHOTONS}, not be {photons}")
    table, bits = shot_table(float(photons))
    return _noisy("shot", picture, 0.0, key, isa, table, bits)


def normal(shape: int | tuple[int, ...], key: int, stream: int = 0, isa: str = "") -> np.ndarray:
    """Independent N(0, 1), float32. stream: 32 bits; another one of the same key gives other numbers."""
    return _drawn("normal", shape, key, stream, isa)


def uniform(shape: int | tuple[int, ...], key: int, stream: int = 0, isa: str = "") -> np.ndarray:
    """Independent and even in [0, 1), multiples of 2^−24, float32."""
    return _drawn("uniform", shape, key, stream, isa)


def shuffle(picture: np.ndarray, reach: int, turns: int, key: int, isa: str = "") -> np.ndarray:
    """uint8 [h, w, c] whose pixels, from the lower right on, each take the value of one at most `reach` pixels away
    (−reach … reach − 1 across and down, evenly), `turns` times over; rows and columns up to `reach`, and the last
    reach − 1, stay. ImageNet-C's glass: its code says "swap", but with NumPy's views the second half of the swap
    writes back what was just written. Raises TypeError for another dtype, ValueError for the rest."""
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    if picture.ndim != 3 or reach < 1 or turns < 0:
        raise ValueError(f"shuffle takes [h, w, c], reach ≥ 1, turns ≥ 0, not {list(picture.shape)}, {reach}, {turns}")
    output = np.array(picture, order="C")
    compiled().shuffle(output.ctypes.data, output.shape, reach, turns, key, isa)
    return output


@lru_cache(maxsize=16)
def shot_table(photons: float) -> tuple[np.ndarray, int]:
    """uint8 [256, 2^bits, 8] and bits: an alias table per grey level, for `shot_noise`."""
    bits = max(1, int(np.ceil(photons)).bit_length())
    table = np.empty((256, 1 << bits, 8), np.uint8)
    compiled().shot_table(photons, bits, table.ctypes.data)
    return table, bits


def _noisy(
    kind: str, picture: np.ndarray, strength: float, key: int, isa: str, table: Any = None, bits: int = 0
) -> np.ndarray:
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, not {picture.dtype}")
    if not 0 <= strength < 1e6:
        raise ValueError(f"the strength of noise must be a number from 0 on, not {strength}")
    source = np.ascontiguousarray(picture)
    output = np.empty(picture.shape, np.uint8)
    where = (source.ctypes.data, output.ctypes.data, source.size)
    address = 0 if table is None else table.ctypes.data
    compiled().noise(KINDS.index(kind), *where, strength, address, bits, key, 0, isa)
    return output


def _drawn(kind: str, shape: int | tuple[int, ...], key: int, stream: int, isa: str) -> np.ndarray:
    output = np.empty(shape, np.float32)
    compiled().noise(KINDS.index(kind), 0, output.ctypes.data, output.size, 0.0, 0, 0, key, stream, isa)
    return output


# -- the slow and obvious way ------------------------------------------------------------------------------------


def philox(counter: np.ndarray, key: int) -> np.ndarray:
    """uint32 [n, 4], 64 bits → uint32 [n, 4]."""
    c = counter.astype(np.uint64).T
    k = [key & 0xFFFFFFFF, key >> 32]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        first, second = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = np.stack(
            [
                (second >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]),
                second & low,
                (first >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]),
                first & low,
            ]
        )
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c.T.astype(np.uint32)


def words(n: int, key: int, stream: int = 0) -> np.ndarray:
    """The first n words, uint32, in the order of blocks."""
    blocks = -(-n // (4 * BLOCK))
    number = np.arange(blocks * BLOCK, dtype=np.uint64)
    zero = np.zeros_like(number)
    counters = np.stack([number & np.uint64(0xFFFFFFFF), number >> np.uint64(32), zero + np.uint64(stream), zero], 1)
    return philox(counters, key).reshape(blocks, BLOCK, 4).transpose(0, 2, 1).ravel()[:n]


def normal_reference(n: int, key: int, stream: int = 0) -> np.ndarray:
    """float64 [n]: √(−2 log u) · (cos, sin)(2π v)."""
    blocks = -(-n // (4 * BLOCK))
    pairs = words(blocks * 4 * BLOCK, key, stream).reshape(blocks, 2, 2, BLOCK).astype(np.float64)
    radius = np.sqrt(-2 * np.log((np.floor(pairs[:, :, 0] / 256) + 1) / 2**24))
    angle = 2 * np.pi * pairs[:, :, 1] / 2**32
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 2).ravel()[:n]


def shuffle_reference(picture: np.ndarray, reach: int, turns: int, key: int) -> np.ndarray:
    output = np.array(picture)
    h, w, _ = picture.shape
    places = [(y, x) for y in range(h - reach, reach, -1) for x in range(w - reach, reach, -1)] * turns
    for (y, x), word in zip(places, words(len(places), key).tolist(), strict=True):
        dx, dy = ((half * 2 * reach >> 16) - reach for half in (word >> 16, word & 0xFFFF))
        output[y, x] = output[y + dy, x + dx]
    return output


def variants() -> dict[str, Callable[..., np.ndarray]]:
    """Every compiled way to compute it here, fastest first: name → function of (picture, strength, key) that adds
    Gaussian noise."""
    return {f"cpp-{isa}": partial(gaussian_noise, isa=isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make()` gives (picture, std, key)."""

    name: str
    shape: tuple[int, ...]

    def make(self) -> tuple[np.ndarray, float, int]:
        rng = np.random.Generator(np.random.PCG64([*self.shape, 1]))
        return rng.integers(0, 256, self.shape, np.uint8), 0.18, 0x0123456789ABCDEF


BENCHMARK_CASES = (Case("224", (224, 224, 3)),)


def cases() -> Iterator[Case]:
    """Sizes around every vector and block."""
    for n in (0, 1, 3, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 1009):
        yield Case(f"n{n}", (n,))
    yield Case("picture", (224, 224, 3))


def cost(case: Case) -> tuple[int, int]:
    """(bytes, operations): every value read and written once; some 45 operations of integers make a word, and 35 of
    floats a normal deviate."""
    values = int(np.prod(case.shape))
    return 2 * values, 80 * values
