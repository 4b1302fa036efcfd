"""conv_block: convolution, bias, ReLU and 2×2 max-pool in one pass, and the gradients of all three inputs.

Contract
    input   [n, c, h, w]     float32 or float64, any strides: NCHW and channels-last are read where they lie
    weight  [o, c, kh, kw]   of input's dtype; kernel sizes 1 to 7; dilation 1
            [c, 1, kh, kw]   with groups = c: one filter per channel ("depthwise"), o = c
    bias    [o]              or None
    →  output [n, o, rows, cols], channels-last in memory
       code   uint8 [n, rows, cols, o]: which of the four values the maximum was (2·down + across; 0 without the pool),
              or 4 where ReLU left a zero: all that the backward pass needs to know of the forward pass

    y = input ⋆ weight + bias        (cross-correlation, zeros around the border), [n, o, oh, ow]
    y = max(y, 0)                    if relu
    output = 2×2 maximum of y        if pool; an odd last row or column is left out
    oh = ⌊(h + 2·padding − kh) / stride⌋ + 1, ow likewise; rows = ⌊oh / 2⌋ with the pool, else oh

torch.nn.functional's max_pool2d(relu(conv2d(…)), 2): of equal values the first is the maximum, a NaN is larger than
any number (the last of them, if several) and passes ReLU. With one filter per channel and a stride above 1 the input's
gradient is a convolution of gradients with zeros between them: of those zeros a filter that holds ∞ or NaN makes NaN,
where torch's gradient is finite.

3×3 and 5×5 filters at stride 1, float32, from 8 channels to 8 on are taken by Winograd's algorithm (csrc/conv.inl):
16 products instead of 36, 49 instead of 100, about as exact as a direct sum. One thing differs: where an input, a
weight or a sum within a tile is not finite, all outputs of the 2×2 tiles that see it (windows of the pool) may become
NaN or infinite, and without the pool the gradients likewise.

Source: LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998), section II; the gradient of
a maximum goes to the place where it was taken, that of ReLU is 0 at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from hw4fast.kernels import compiled, isas, threads_by_default
from hw4fast.kernels.conv_block_cases import BENCHMARK_CASES, PLAIN_BENCHMARK_CASES, Case, Pair, cases
from hw4fast.kernels.conv_block_checks import check, check_grad, check_options, output_shape
from hw4fast.kernels.conv_block_numba import conv_block_backward_numba, conv_block_numba

__all__ = [
    "BENCHMARK_CASES",
    "PLAIN_BENCHMARK_CASES",
    "Case",
    "cases",
    "check",
    "check_grad",
    "check_options",
    "conv_block",
    "conv_block_backward",
    "conv_block_backward_numba",
    "conv_block_numba",
    "cost",
    "output_shape",
    "reference",
    "reference_backward",
    "variants",
]
DTYPES = (np.float32, np.float64)
DEAD = 4


def reference(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    relu: bool = True,
    pool: bool = True,
    groups: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Output and code in float64, slow and obvious."""
    weight = _whole(weight, groups)
    y = np.zeros(output_shape(input.shape, weight.shape, stride, padding, pool=False))
    for i, j, patch in _patches(input, weight.shape, stride, padding):
        y += np.einsum("nchw,oc->nohw", patch, weight[:, :, i, j].astype(np.float64))
    if bias is not None:
        y += bias[:, None, None]
    if relu:
        y = np.where(y <= 0, 0, y)
    if not pool:
        return y, (np.where(y == 0, DEAD, 0) if relu else np.zeros(y.shape)).astype(np.uint8).transpose(0, 2, 3, 1)
    rows, cols = y.shape[2] // 2, y.shape[3] // 2
    four = np.stack([y[:, :, down : 2 * rows : 2, across : 2 * cols : 2] for down in (0, 1) for across in (0, 1)])
    code = np.where(np.isnan(four).any(0), 3 - np.isnan(four[::-1]).argmax(0), four.argmax(0))
    output = np.take_along_axis(four, code[None], 0)[0]
    return output, np.where((output == 0) & relu, DEAD, code).astype(np.uint8).transpose(0, 2, 3, 1)


def reference_backward(
    grad: np.ndarray,
    code: np.ndarray,
    input: np.ndarray,
    weight: np.ndarray,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    pool: bool = True,
    groups: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of input, weight and bias in float64 from that of the output, slow and obvious."""
    weight = _whole(weight, groups)
    grad = np.where(code.transpose(0, 3, 1, 2) == DEAD, 0, grad).astype(np.float64)
    y = np.zeros(output_shape(input.shape, weight.shape, stride, padding, pool=False))
    if pool:
        rows, cols = grad.shape[2:]
        for k in range(4):
            y[:, :, k // 2 : 2 * rows : 2, k % 2 : 2 * cols : 2] = np.where(code.transpose(0, 3, 1, 2) == k, grad, 0)
    else:
        y = grad
    grad_input, grad_weight = np.zeros(input.shape), np.zeros(weight.shape)
    bordered = np.pad(grad_input, ((0, 0), (0, 0), *((side, side) for side in padding)))
    for i, j, patch in _patches(input, weight.shape, stride, padding):
        grad_weight[:, :, i, j] = np.einsum("nohw,nchw->oc", y, patch)
        place = bordered[:, :, i :: stride[0], j :: stride[1]][:, :, : y.shape[2], : y.shape[3]]
        place += np.einsum("nohw,oc->nchw", y, weight[:, :, i, j].astype(np.float64))
    height, width = input.shape[2:]
    if groups > 1:
        grad_weight = grad_weight[range(groups), range(groups)][:, None]
    return bordered[:, :, padding[0] :][:, :, :height, padding[1] :][..., :width], grad_weight, y.sum((0, 2, 3))


def _whole(weight: np.ndarray, groups: int) -> np.ndarray:
    """The weight [o, c, kh, kw] of a convolution without groups that does the same."""
    if groups == 1:
        return weight
    whole = np.zeros((groups, groups, *weight.shape[2:]))
    whole[range(groups), range(groups)] = weight[:, 0]
    return whole


def _patches(
    input: np.ndarray, weight_shape: Any, stride: Pair, padding: Pair
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(i, j, what weight[:, :, i, j] meets of the input: [n, c, oh, ow])."""
    _, _, oh, ow = output_shape(input.shape, weight_shape, stride, padding, pool=False)
    bordered = np.pad(input.astype(np.float64), ((0, 0), (0, 0), *((side, side) for side in padding)))
    for i in range(weight_shape[2]):
        for j in range(weight_shape[3]):
            yield i, j, bordered[:, :, i :: stride[0], j :: stride[1]][:, :, :oh, :ow]


def conv_block(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    relu: bool = True,
    pool: bool = True,
    groups: int = 1,
    isa: str = "",
    threads: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Output and code of NumPy arrays on our kernel; inputs are not modified.

    isa: an instruction set of `hw4fast.kernels.isas()`; empty for HW4FAST_ISA or the best.
    threads: 0 for HW4FAST_THREADS or all cores; the result does not depend on it.
    Raises TypeError for a wrong dtype, ValueError for a wrong shape, value or `isa`.
    """
    n, o, rows, cols = check(input, weight, bias, stride, padding, relu, pool, groups)
    input, weight, bias = _arrays(input, weight, bias)
    output = np.empty((n, rows, cols, o), input.dtype)
    code = np.empty((n, rows, cols, o), np.uint8)
    compiled().conv_block(
        input.itemsize == 8,
        input.ctypes.data,
        _strides(input),
        weight.ctypes.data,
        0 if bias is None else bias.ctypes.data,
        output.ctypes.data,
        code.ctypes.data,
        input.shape,
        (o, *weight.shape[2:], groups),
        stride,
        padding,
        relu,
        pool,
        isa,
        threads or threads_by_default() or 0,
    )
    return output.transpose(0, 3, 1, 2), code


def conv_block_backward(
    grad: np.ndarray,
    code: np.ndarray,
    input: np.ndarray,
    weight: np.ndarray,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    relu: bool = True,
    pool: bool = True,
    groups: int = 1,
    isa: str = "",
    threads: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of input, weight and bias from that of the output [n, o, rows, cols] and the forward pass's code.

    Raises as conv_block does, and for a grad or code that doesn't fit.
    """
    check_grad(grad, code, check(input, weight, None, stride, padding, relu, pool, groups))
    input, weight, grad = _arrays(input, weight, grad)
    if code.dtype != np.uint8:
        raise TypeError(f"code must be uint8, not {code.dtype}")
    code = np.require(code, requirements=["C", "A"])
    (n, c, h, w), (o, _, kh, kw) = input.shape, weight.shape
    grad_input, grad_weight = np.empty((n, h, w, c), input.dtype), np.empty(weight.shape, input.dtype)
    grad_bias = np.empty(o, input.dtype)
    compiled().conv_block_backward(
        input.itemsize == 8,
        grad.ctypes.data,
        _strides(grad),
        code.ctypes.data,
        False,
        input.ctypes.data,
        _strides(input),
        weight.ctypes.data,
        grad_input.ctypes.data,
        grad_weight.ctypes.data,
        grad_bias.ctypes.data,
        input.shape,
        (o, kh, kw, groups),
        stride,
        padding,
        relu,
        pool,
        isa,
        threads or threads_by_default() or 0,
    )
    return grad_input.transpose(0, 3, 1, 2), grad_weight, grad_bias


def _arrays(input: np.ndarray, weight: np.ndarray, other: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Aligned; the weight and a bias contiguous; one dtype. Raises TypeError."""
    if input.dtype not in DTYPES:
        raise TypeError(f"input must be float32 or float64, not {input.dtype}")
    for name, array in (("weight", weight), ("bias or grad", other)):
        if array is not None and array.dtype != input.dtype:
            raise TypeError(f"{name} must be {input.dtype} like input, not {array.dtype}")
    if other is not None:
        other = np.require(other, requirements=["A"] if other.ndim == 4 else ["C", "A"])
    return _whole_strides(input), np.require(weight, requirements=["C", "A"]), other


def _whole_strides(array: np.ndarray) -> np.ndarray:
    ragged = not array.flags.aligned or any(stride % array.itemsize for stride in array.strides)
    return array.copy() if ragged else array


def _strides(array: np.ndarray) -> tuple[int, ...]:
    return tuple(stride // array.itemsize for stride in array.strides)


def variants() -> dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]]:
    """Every compiled way to compute it here, fastest first: name → function of (input, weight, bias, **options)."""

    def on(isa: str) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        return partial(conv_block, isa=isa)

    return {f"cpp-{isa}": on(isa) for isa in isas()}


def cost(case: Case) -> tuple[int, int]:
    """(bytes, flops) of the forward pass in float32: input, weight and output once; a multiplication and an addition
    count as two, only outputs that the pool looks at are counted, and all products, though Winograd takes fewer."""
    n, c, h, w = case.shape
    o, kh, kw = case.filters
    _, _, rows, cols = output_shape(case.shape, (o, c, kh, kw), case.stride, case.padding, case.pool)
    taps = c // case.groups * kh * kw
    values = n * c * h * w + o * taps + n * o * rows * cols
    return 4 * values, 2 * n * o * rows * cols * (4 if case.pool else 1) * taps
