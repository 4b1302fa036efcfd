"""batch_norm_block: batch normalisation, ReLU and 2×2 max-pool in one pass, and the gradients of all three inputs.

Contract
    input         [n, c, h, w]  float32 or float64, any strides: NCHW and channels-last are read where they lie
    weight, bias  [c]           γ and β, of input's dtype
    mean, var     [c]           what to normalise with; None for the mean and the biased variance of the batch
    eps           ≥ 0, added to the variance
    →  output [n, c, rows, cols], channels-last in memory
       code   uint8 [n, rows, cols, c], as conv_block's: which of the four values the maximum was, or 4 where ReLU left
              a zero
       mean, var  [c], those that were used, rounded to input's dtype: the gradients are those at the rounded ones

    x̂ = (input − mean) / √(var + eps)
    y = weight·x̂ + bias
    y = max(y, 0)            if relu
    output = 2×2 maximum     if pool; an odd last row or column is left out (of the output, not of the statistics)

torch.nn.functional's max_pool2d(relu(batch_norm(…)), 2). All sums are made in double, the
statistics' about the batch's first pixel, the backward pass's about the mean, in an order that doesn't depend on the
number of threads.

Source: Ioffe, Szegedy, "Batch Normalization" (2015), algorithm 1 and the gradients after it; ReLU's gradient is 0 at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hw4fast.kernels import compiled, isas, threads_by_default
from hw4fast.kernels.batch_norm_block_checks import check, check_grad, check_options
from hw4fast.kernels.batch_norm_block_numba import batch_norm_block_backward_numba, batch_norm_block_numba

__all__ = [
    "BENCHMARK_CASES",
    "Case",
    "batch_norm_block",
    "batch_norm_block_backward",
    "batch_norm_block_backward_numba",
    "batch_norm_block_numba",
    "cases",
    "check",
    "check_grad",
    "check_options",
    "cost",
    "reference",
    "reference_backward",
    "variants",
]
DTYPES = (np.float32, np.float64)
DEAD = 4
Results = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def reference(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray | None = None,
    var: np.ndarray | None = None,
    eps: float = 1e-5,
    relu: bool = True,
    pool: bool = True,
) -> Results:
    """Output, code, mean and variance in float64, slow and obvious."""
    x = input.astype(np.float64)
    mean = x.mean((0, 2, 3)) if mean is None else mean.astype(np.float64)
    var = x.var((0, 2, 3)) if var is None else var.astype(np.float64)
    normal = (x - mean[:, None, None]) / np.sqrt(var + eps)[:, None, None]
    y = weight[:, None, None].astype(np.float64) * normal + bias[:, None, None]
    if relu:
        y = np.where(y <= 0, 0, y)
    four = _windows(y, pool)
    code = np.where(np.isnan(four).any(0), len(four) - 1 - np.isnan(four[::-1]).argmax(0), four.argmax(0))
    output = np.take_along_axis(four, code[None], 0)[0]
    return output, np.where((output == 0) & relu, DEAD, code).astype(np.uint8).transpose(0, 2, 3, 1), mean, var


def reference_backward(
    grad: np.ndarray,
    code: np.ndarray,
    input: np.ndarray,
    weight: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    training: bool = True,
    eps: float = 1e-5,
    pool: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of input, weight and bias in float64, slow and obvious. training: mean and var are the batch's, and
    change with it."""
    x, y = input.astype(np.float64), np.zeros(input.shape)
    for k, window in enumerate(_windows(y, pool, copy=False)):
        window[...] = np.where(code.transpose(0, 3, 1, 2) == k, grad, 0)
    inverse = (1 / np.sqrt(var.astype(np.float64) + eps))[:, None, None]
    normal = (x - mean.astype(np.float64)[:, None, None]) * inverse
    grad_weight, grad_bias = (y * normal).sum((0, 2, 3)), y.sum((0, 2, 3))
    if training:
        m = x[:, 0].size
        y = y - grad_bias[:, None, None] / m - normal * grad_weight[:, None, None] / m
    return weight.astype(np.float64)[:, None, None] * inverse * y, grad_weight, grad_bias


def _windows(y: np.ndarray, pool: bool, copy: bool = True) -> Any:
    """[4, n, c, rows, cols], the four values of each window; [1, …] without the pool. copy=False: views, to write."""
    if not pool:
        return y[None]
    rows, cols = y.shape[2] // 2, y.shape[3] // 2
    four = [y[:, :, down : 2 * rows : 2, across : 2 * cols : 2] for down in (0, 1) for across in (0, 1)]
    return np.stack(four) if copy else four


def batch_norm_block(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray | None = None,
    var: np.ndarray | None = None,
    eps: float = 1e-5,
    relu: bool = True,
    pool: bool = True,
    isa: str = "",
    threads: int = 0,
) -> Results:
    """Output, code, mean and variance of NumPy arrays on our kernel; inputs are not modified.

    isa: an instruction set of `hw4fast.kernels.isas()`; empty for HW4FAST_ISA or the best.
    threads: 0 for HW4FAST_THREADS or all cores; the result does not depend on it.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape, value or `isa`, and in training for a batch of one
    value per channel.
    """
    n, c, rows, cols = check(input, weight, bias, mean, var, eps, relu, pool)
    input, (weight, bias) = _arrays(input, weight=weight, bias=bias)
    given = mean is not None
    used_mean, used_var = np.empty((2, c), input.dtype) if mean is None or var is None else _copies(input, mean, var)
    output, code = np.empty((n, rows, cols, c), input.dtype), np.empty((n, rows, cols, c), np.uint8)
    compiled().batch_norm_block(
        input.itemsize == 8,
        input.ctypes.data,
        [stride // input.itemsize for stride in input.strides],
        weight.ctypes.data,
        bias.ctypes.data,
        used_mean.ctypes.data,
        used_var.ctypes.data,
        not given,
        output.ctypes.data,
        code.ctypes.data,
        input.shape,
        eps,
        relu,
        pool,
        isa,
        threads or threads_by_default() or 0,
    )
    return output.transpose(0, 3, 1, 2), code, used_mean, used_var


def batch_norm_block_backward(
    grad: np.ndarray,
    code: np.ndarray,
    input: np.ndarray,
    weight: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    training: bool = True,
    eps: float = 1e-5,
    pool: bool = True,
    isa: str = "",
    threads: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of input, weight and bias from that of the output [n, c, rows, cols] and the forward pass's code, mean
    and variance. training: mean and var are the batch's, and change with it.

    Raises as batch_norm_block does, and for a grad or code that doesn't fit.
    """
    check_grad(grad, code, check(input, weight, None, mean, var, eps, True, pool))
    input, (weight, mean, var) = _arrays(input, weight=weight, mean=mean, var=var)
    grad, _ = _arrays(grad)
    if grad.dtype != input.dtype or code.dtype != np.uint8:
        raise TypeError(f"grad must be {input.dtype} and code uint8, not {grad.dtype} and {code.dtype}")
    code = np.require(code, requirements=["C", "A"])
    n, c, h, w = input.shape
    grad_input, grad_weight, grad_bias = np.empty((n, h, w, c), input.dtype), np.empty_like(mean), np.empty_like(mean)
    compiled().batch_norm_block_backward(
        input.itemsize == 8,
        grad.ctypes.data,
        [stride // grad.itemsize for stride in grad.strides],
        code.ctypes.data,
        input.ctypes.data,
        [stride // input.itemsize for stride in input.strides],
        weight.ctypes.data,
        mean.ctypes.data,
        var.ctypes.data,
        training,
        grad_input.ctypes.data,
        grad_weight.ctypes.data,
        grad_bias.ctypes.data,
        input.shape,
        eps,
        pool,
        isa,
        threads or threads_by_default() or 0,
    )
    return grad_input.transpose(0, 3, 1, 2), grad_weight, grad_bias


def _arrays(input: np.ndarray, **others: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Aligned, the others contiguous; one dtype. Raises TypeError."""
    if input.dtype not in DTYPES:
        raise TypeError(f"input must be float32 or float64, not {input.dtype}")
    for name, array in others.items():
        if array.dtype != input.dtype:
            raise TypeError(f"{name} must be {input.dtype} like input, not {array.dtype}")
    ragged = not input.flags.aligned or any(stride % input.itemsize for stride in input.strides)
    return input.copy() if ragged else input, [np.require(a, requirements=["C", "A"]) for a in others.values()]


def _copies(input: np.ndarray, mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, (mean, var) = _arrays(input, mean=mean, var=var)
    return mean.copy(), var.copy()


def variants() -> dict[str, Callable[..., Results]]:
    """Every compiled way to compute it here, fastest first: name → function of (input, weight, bias, **options)."""
    return {f"cpp-{isa}": partial(batch_norm_block, isa=isa) for isa in isas()}


@dataclass(frozen=True)
class Case:
    """One input: `make(dtype)` gives (input, weight, bias, options) of batch_norm_block. given: with a mean and a
    variance; offset: added to the input."""

    name: str
    shape: tuple[int, int, int, int]
    relu: bool = True
    pool: bool = True
    given: bool = False
    channels_last: bool = True
    offset: float = 0.0
    eps: float = 1e-5

    def make(self, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        n, c, h, w = self.shape
        rng = np.random.Generator(np.random.PCG64([*self.shape]))
        input = rng.standard_normal((n, h, w, c) if self.channels_last else self.shape) * 2 + self.offset
        input = input.astype(dtype)
        if self.channels_last:
            input = input.transpose(0, 3, 1, 2)
        weight, bias = rng.standard_normal((2, c)).astype(dtype)
        options: dict[str, Any] = {"eps": self.eps, "relu": self.relu, "pool": self.pool}
        if self.given:
            options |= {"mean": rng.standard_normal(c).astype(dtype), "var": rng.uniform(0.5, 4.0, c).astype(dtype)}
        return input, weight, bias, options


BENCHMARK_CASES = (
    Case("16x28", (100, 16, 28, 28)),
    Case("32x14", (100, 32, 14, 14)),
    Case("64x56", (16, 64, 56, 56)),
)


def cases() -> Iterator[Case]:
    """Channels around every vector width, sides odd and even, options each alone and together, offsets."""
    for c in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65):
        yield Case(f"c{c}", (3, c, 6, 7))
    for h, w in ((2, 2), (2, 3), (3, 2), (5, 5), (1, 9), (9, 1), (1, 1), (14, 28)):
        yield Case(f"plain-{h}x{w}", (4, 5, h, w), relu=False, pool=False)
        if min(h, w) > 1:
            yield Case(f"{h}x{w}", (4, 5, h, w))
    for relu in (False, True):
        for pool in (False, True):
            for given in (False, True):
                name = "-".join(["options", *("relu",) * relu, *("pool",) * pool, *("given",) * given])
                yield Case(name, (5, 18, 7, 6), relu, pool, given)
                yield Case(f"{name}-nchw", (5, 18, 7, 6), relu, pool, given, channels_last=False)
    for offset in (1e2, 1e4, -1e6):
        yield Case(f"offset{offset:g}", (6, 9, 8, 8), offset=offset)
    yield Case("eps", (3, 4, 5, 6), eps=1.0)
    for given in (False, True):
        yield Case(f"threads{'-given' * given}", (16, 33, 29, 31), given=given, channels_last=False)
    yield Case("threads-plain", (40, 20, 29, 31), relu=False, pool=False)
    yield Case("threads-wide", (8, 700, 6, 8))
    yield Case("empty", (0, 3, 4, 4), given=True)


def cost(case: Case) -> tuple[int, int]:
    """(bytes, flops) of the forward pass in float32: the input twice, for the statistics must be known first, the
    output once; three operations per value for them, three for its normalisation and one for the maximum."""
    n, c, h, w = case.shape
    values = n * c * h * w
    return 4 * (2 * values + values // (4 if case.pool else 1)), 7 * values
