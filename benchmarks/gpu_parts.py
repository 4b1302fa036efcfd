"""What the parts of benchmarks/gpu.py's figures take on one GPU: python benchmarks/gpu_parts.py [--json FILE]
[--only small,softmax,conv]

The profile behind its ratios, kernel by kernel: conv_block's passes on seed_cnn's shapes by each way that it has
(plain float and tensor cores) and of wide 3 × 3 convolutions, softmax_xent by what it makes of its rows' losses beside
a copy, and what a loss's backward pass launches for a batch of 100. Microseconds, medians of turns over CUDA graphs;
nothing is compared here: tests/gpu and benchmarks/gpu.py do that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from gpu import in_turns, main, told
from torch import Tensor

from hw4fast.kernels.softmax_xent import REDUCTIONS
from hw4fast.nn import conv_block_cuda, cuda

LAYERS = ((1, 28, 16), (16, 14, 32))  # seed_cnn's: input channels, side, output channels
PRECISIONS = {"ieee": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
WIDE = ((64, 56), (128, 28))  # channels in and out, side
WANTED = {"input": (True, False, False), "weight": (False, True, True), "all": (True, True, True)}


def microseconds(sides: dict[str, Sequence[Callable[[], Any]]], budget: float = 0.1) -> dict[str, float]:
    some = next(iter(sides))
    return {name: round(each["us"], 2) for name, each in told(in_turns(sides, 7, budget), some).items()}


def conv(n: int, c: int, side: int, o: int, precision: str, way: str, size: int = 5) -> dict[str, float]:
    """Forward, and each gradient alone and all; the picture of a first layer wants none. size: of the filter; behind 5
    there are ReLU and pool, behind 3 neither."""
    pool = size == 5
    options = ((1, 1), (size // 2, size // 2), pool, pool, 1)  # stride, padding, ReLU, pool, groups
    dtype = PRECISIONS[precision]
    torch.backends.cudnn.conv.fp32_precision = "ieee" if precision == "ieee" else "tf32"
    half = side // 2 if pool else side

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda").to(dtype)

    x, grad = (made(n, s, s, channels).permute(0, 3, 1, 2) for s, channels in ((side, c), (half, o)))
    weight, bias = made(o, c, size, size) / (size * size * c) ** 0.5, made(o)
    y, code = torch.empty_like(grad), torch.empty(n, half, half, o, device="cuda", dtype=torch.uint8)
    gradients = (torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias))

    def backward(want: tuple[bool, bool, bool]) -> Callable[[], None]:
        return lambda: conv_block_cuda.gradients_of(grad, code, x, weight, options, gradients, want, way)

    calls: dict[str, Callable[[], None]] = {
        "forward": lambda: conv_block_cuda.forward(x, weight, bias, options, y, code, way)
    }
    calls |= {name: backward(want) for name, want in WANTED.items() if c > 1 or name == "weight"}
    return microseconds({name: [call] * 10 for name, call in calls.items()})


def convolutions() -> list[dict[str, Any]]:
    found = []
    for n in (100, 1000):
        for c, side, o in LAYERS:
            for precision in PRECISIONS:
                for way in ("direct", "tensor"):
                    if way == "tensor" and (c == 1 or precision == "ieee"):
                        continue  # tensor cores take neither
                    what = f"conv_block {c}x{side}² to {o}, batch {n}, {precision}, {way}"
                    found.append({"what": what, **conv(n, c, side, o, precision, way)})
                    print(found[-1], flush=True)
    for c, side in WIDE:
        what = f"convolution 3 × 3 {c}x{side}² to {c}, batch 64, bfloat16"
        found.append({"what": what, **conv(64, c, side, c, "bfloat16", "tensor", 3)})
        print(found[-1], flush=True)
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    return found


def softmax() -> list[dict[str, Any]]:
    """Loss and gradient by reduction: none needs neither a count of rows before it nor a sum behind."""
    found = []
    for rows, classes in ((100, 10), (1000, 10), (100, 100), (8192, 1024), (8192, 4096), (8192, 16384)):
        for dtype in (torch.float32, torch.bfloat16):
            copies = 20 if rows < 8192 else max(2, (3 << 28) // (2 * rows * classes * dtype.itemsize))
            xs = [torch.randn(rows, classes, device="cuda").to(dtype) for _ in range(copies)]
            targets = [torch.randint(0, classes, (rows,), device="cuda") for _ in range(copies)]

            def by(number: int, xs=xs, targets=targets) -> list[Callable[[], Any]]:
                kernel = torch.ops.hw4fast.softmax_xent
                return [
                    lambda x=x, t=t: kernel(x, t, None, 1.0, 0.0, -100, number)
                    for x, t in zip(xs, targets, strict=True)
                ]

            sides = {"copy": [x.clone for x in xs], **{name: by(number) for name, number in REDUCTIONS.items()}}
            what = f"softmax_xent ({rows}, {classes}), {str(dtype).removeprefix('torch.')}"
            found.append({"what": what, **microseconds(sides, 0.3)})
            print(found[-1], flush=True)
    return found


def behind_a_loss() -> list[dict[str, Any]]:
    """What autograd launches for a loss of (100, 10) beside softmax_xent: a one, and a look at it."""
    grad, one = torch.randn(100, 10, device="cuda"), torch.ones((), device="cuda")
    sides = {"scale": [lambda: cuda.scale(grad, one)] * 20, "ones": [lambda: torch.ones_like(one)] * 20}
    found = {"what": "behind a loss of (100, 10)", **microseconds(sides)}
    print(found, flush=True)
    return [found]


PARTS = {"small": behind_a_loss, "softmax": softmax, "conv": convolutions}


if __name__ == "__main__":
    main(PARTS, __doc__)
