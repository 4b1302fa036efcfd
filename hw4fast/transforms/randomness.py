"""Random numbers that depend on what is transformed, never on when or where: no global generator."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np


def picture_key(picture: np.ndarray) -> bytes:
    """Hash (16 bytes) of a picture's shape, dtype and pixels: which image the randomness belongs to."""
    digest = hashlib.blake2b(f"{picture.dtype.str}{picture.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(picture).data)
    return digest.digest()


def generator(seed: int, key: bytes, name: str, severity: int = 0, position: int = 0) -> np.random.Generator:
    """A generator for this seed, image key, canonical transform name, severity and position in a chain.

    Counter-based, so that streams of different keys are independent: Philox4x64 (Salmon et al., "Parallel
    random numbers: as easy as 1, 2, 3", SC 2011), keyed by a 128-bit BLAKE2b hash of the five.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (str(seed).encode(), key, name.encode(), str(severity).encode(), str(position).encode()):
        digest.update(len(part).to_bytes(8, "little"))  # framed, so that ("1", "23") is not ("12", "3")
        digest.update(part)
    return np.random.Generator(np.random.Philox(_keys()(digest.digest())))


@cache
def _keys() -> type:
    """A seed that is a Philox's key. `key` itself asks the system for entropy first: three times as long. It has no
    children: they would not be the same each time. Imported on first use: numpy.random takes 12 ms, and what has no
    chance needs none."""
    from numpy.random.bit_generator import ISeedSequence

    class Key(ISeedSequence):
        def __init__(self, key: bytes) -> None:
            self._words = np.frombuffer(key, "<u8").astype(np.uint64)

        def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
            return self._words

    return Key


def key_of(rng: np.random.Generator) -> int:
    """64 bits for a kernel that draws from counters (hw4fast.kernels.noise)."""
    return int(rng.integers(0, 2**64, dtype=np.uint64))
