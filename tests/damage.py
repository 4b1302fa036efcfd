"""Damage to files by chance, the same for the same generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Rng = np.random.Generator
NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62)


def damaged(data: bytes, others: Sequence[bytes], rng: Rng, head: int = 400) -> bytes:
    """`data` with 1 to 6 changes, half of which lie in its first `head` bytes; pieces may come from `others`."""
    for _ in range(1 + int(rng.integers(6) * rng.random())):
        if not data:
            break
        place = int(rng.integers(min(len(data), head) if rng.random() < 0.5 else len(data)))
        data = CHANGES[int(rng.integers(len(CHANGES)))](data, place, others, rng)
    return data or b"\0"


def _put(data: bytes, place: int, new: bytes, instead_of: int | None = None) -> bytes:
    return data[:place] + new + data[place + (len(new) if instead_of is None else instead_of) :]


def flip(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    return _put(data, place, bytes([data[place] ^ 1 << int(rng.integers(8))]))


def byte(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    return _put(data, place, bytes([int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))]))


def run(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    length = int(rng.integers(1, 64))
    return _put(
        data, place, bytes([int(rng.choice([0, 255, 65]))]) * length if rng.random() < 0.5 else rng.bytes(length)
    )


def number(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    value, size = int(rng.choice(NUMBERS)), int(rng.choice([2, 4, 8]))
    return _put(data, place, (value % 256**size).to_bytes(size, "big" if rng.random() < 0.5 else "little"))


def varint(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    """A large number as protobuf writes it, in place of a byte."""
    value, out = int(rng.choice(NUMBERS)), b""
    while value >= 128:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return _put(data, place, out + bytes([value]), 1)


def cut(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    return data[:place]


def remove(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    return data[:place] + data[place + int(rng.integers(1, 200)) :]


def insert(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    return _put(data, place, rng.bytes(int(rng.integers(1, 200))), 0)


def repeat(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    piece = data[place : place + int(rng.integers(1, 200))]
    return _put(data, place, piece * int(rng.choice([1, 2, 50])), 0)


def move(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    piece, target = data[place : place + 40], int(rng.integers(len(data)))
    return _put(data, target, piece)


def splice(data: bytes, place: int, others: Sequence[bytes], rng: Rng) -> bytes:
    other = others[int(rng.integers(len(others)))]
    return data[:place] + other[int(rng.integers(len(other))) :]


CHANGES: tuple[Callable[[bytes, int, Sequence[bytes], Rng], bytes], ...] = (
    *(flip, flip, byte, byte, run, number, number, varint, varint),
    *(cut, remove, insert, repeat, move, splice),
)
