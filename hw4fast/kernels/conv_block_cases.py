"""The inputs on which conv_block is tested and timed; hw4fast.kernels.conv_block is the card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST_KERNEL = 7
Pair = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One input: `make(dtype)` gives (input, weight, bias or None, options) of conv_block."""

    name: str
    shape: tuple[int, int, int, int]  # n, c, h, w
    filters: tuple[int, int, int]  # o, kh, kw
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    relu: bool = True
    pool: bool = True
    bias: bool = True
    channels_last: bool = False
    groups: int = 1

    def make(self, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict[str, Any]]:
        n, c, h, w = self.shape
        o, kh, kw = self.filters
        rng = np.random.Generator(np.random.PCG64([*self.shape, *self.filters]))
        input = rng.standard_normal((n, h, w, c) if self.channels_last else self.shape).astype(dtype)
        if self.channels_last:
            input = input.transpose(0, 3, 1, 2)
        each = c // self.groups
        weight = (rng.standard_normal((o, each, kh, kw)) / np.sqrt(each * kh * kw)).astype(dtype)
        bias = rng.standard_normal(o).astype(dtype) if self.bias else None
        return (
            input,
            weight,
            bias,
            {name: getattr(self, name) for name in ("stride", "padding", "relu", "pool", "groups")},
        )


BENCHMARK_CASES = (
    Case("1x28-16-5x5", (100, 1, 28, 28), (16, 5, 5), padding=(2, 2)),
    Case("1x28-32-3x3", (100, 1, 28, 28), (32, 3, 3), padding=(1, 1)),
    Case("16x14-32-5x5", (100, 16, 14, 14), (32, 5, 5), padding=(2, 2)),
    Case("32x14-64-3x3", (100, 32, 14, 14), (64, 3, 3), padding=(1, 1)),
)
PLAIN_BENCHMARK_CASES = tuple(
    Case(name, shape, filters, padding=(1, 1), relu=False, pool=False, groups=groups)
    for name, shape, filters, groups in (
        ("3x3 64 to 64 on 56², batch 1", (1, 64, 56, 56), (64, 3, 3), 1),
        ("3x3 64 to 64 on 56², batch 16", (16, 64, 56, 56), (64, 3, 3), 1),
        ("3x3 depthwise 64 on 56², batch 16", (16, 64, 56, 56), (64, 3, 3), 64),
    )
)


def cases() -> Iterator[Case]:
    """Channels around every vector width, every kernel size, borders wider than the picture, and each option."""
    for o in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 65):
        yield Case(f"o{o}", (2, 3, 9, 10), (o, 3, 3), padding=(1, 1))
    for c in (1, 2, 4, 5, 8, 15, 16, 17, 33):
        yield Case(f"c{c}", (3, c, 8, 7), (5, 5, 5), padding=(2, 2), channels_last=c % 2 == 0)
    for k in range(1, LARGEST_KERNEL + 1):
        yield Case(f"k{k}", (2, 2, 11, 12), (6, k, k), padding=(k // 2, k // 2))
        yield Case(f"k{k}x{8 - k}", (2, 2, 11, 12), (6, k, 8 - k), pool=False)
    for stride in ((1, 2), (2, 1), (2, 2), (3, 3), (4, 5), (5, 7)):
        for pool in (False, True):
            yield Case(f"stride{stride}{'-pool' * pool}", (2, 3, 17, 18), (20, 3, 5), stride, (1, 2), pool=pool)
    for width in (2, 3, 5, 6, 13, 14, 15, 27, 28, 29, 61):
        yield Case(f"w{width}", (2, 2, 4, width), (18, 3, 3), padding=(1, 1), pool=width % 2 == 0)
    for relu in (False, True):
        for pool in (False, True):
            for channels_last in (False, True):
                options: dict[str, Any] = {"relu": relu, "pool": pool, "channels_last": channels_last, "bias": relu}
                name = "-".join(key for key, value in options.items() if value) or "plain"
                yield Case(name, (37, 16, 6, 6), (32, 3, 3), padding=(1, 1), **options)
    yield from _winograd_cases()
    yield from _fft_cases()
    yield from _depthwise_cases()
    yield Case("empty", (0, 3, 8, 8), (4, 3, 3))
    yield Case("border", (2, 2, 2, 3), (4, 3, 3), padding=(5, 7))
    yield Case("tall", (1, 8, 151, 6), (16, 3, 3), padding=(1, 1))  # several bands


def _winograd_cases() -> Iterator[Case]:
    for c, o in ((8, 8), (9, 17), (15, 31), (16, 32), (17, 33), (33, 48), (130, 9), (300, 65)):
        for k in (3, 5):
            yield Case(f"c{c}-o{o}-k{k}", (2, c, 11, 9), (o, k, k), padding=(k // 2, 1), pool=False)
            yield Case(f"c{c}-o{o}-k{k}-pool", (2, c, 13, 12), (o, k, k), padding=(1, 2), channels_last=c % 2 == 0)
    yield Case("winograd-empty", (0, 8, 8, 8), (8, 3, 3))
    yield Case("winograd-border", (2, 8, 2, 3), (8, 5, 5), padding=(5, 7))
    yield Case("winograd-wide", (1, 8, 7, 151), (8, 3, 3), padding=(1, 1))


def _fft_cases() -> Iterator[Case]:
    """Enough tiles to be worth the filters' transforms: pictures that fit into one with their border, and others."""
    yield Case("fft-whole", (19, 16, 14, 14), (33, 5, 5), padding=(2, 2))
    yield Case("fft-narrow-border", (17, 9, 12, 13), (17, 5, 5), padding=(1, 2), relu=False, pool=False)
    yield Case("fft-wide-border", (16, 8, 9, 9), (8, 5, 5), padding=(6, 4), pool=False, bias=False)
    yield Case("fft-tiles", (3, 8, 41, 30), (31, 5, 5), padding=(2, 0))
    yield Case("fft-tiles-k3", (5, 16, 27, 28), (48, 3, 3), padding=(1, 1), pool=False, channels_last=True)
    yield Case("fft-many-channels", (16, 130, 8, 8), (40, 5, 5), padding=(2, 2))


def _depthwise_cases() -> Iterator[Case]:
    for c in (2, 7, 8, 9, 15, 16, 17, 33):
        yield Case(f"depthwise-c{c}", (2, c, 9, 10), (c, 3, 3), padding=(1, 1), channels_last=c % 2 == 0, groups=c)
    for k in range(1, LARGEST_KERNEL + 1):
        yield Case(f"depthwise-k{k}", (3, 5, 11, 24), (5, k, 8 - k), padding=(k // 2, 1), pool=k % 2 == 0, groups=5)
    for stride in ((1, 2), (2, 2), (3, 4), (5, 7)):
        for pool in (False, True):
            name = f"depthwise-stride{stride}{'-pool' * pool}"
            yield Case(name, (2, 18, 19, 17), (18, 3, 5), stride, (1, 3), relu=not pool, pool=pool, groups=18)
