"""conv_block and its gradients in numba: stride 1, "same" padding of odd kernels, ReLU and pool.

A bordered picture is one line of numbers, [c, h + kh − 1, w + kw − 1] without its brackets. An output is then a sum of
shifted lines, each times one weight: long loops that LLVM turns into vectors. What such a line holds between two rows
of the picture is computed and left aside, or meets the zeros of a border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hw4fast.kernels.conv_block_checks import check, check_grad
from hw4fast.kernels.numba_variants import compiled_by_numba, set_threads

LANES = 32  # the lines that are summed are a multiple of so many long, as otherwise LLVM's loops end number by number


def conv_block_numba(input: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Output [n, o, h/2, w/2]. Raises ValueError for a wrong shape, TypeError for a wrong dtype."""
    if bias is None:
        raise ValueError("the numba variant needs a bias; take zeros")
    _check(input, weight, bias)
    n, _, h, w = input.shape
    output = np.empty((n, len(weight), h // 2, w // 2), input.dtype)
    lines, bordered = _bordered(input, weight)
    set_threads()
    compiled_by_numba(_forward)(lines, *_taps(weight, bordered), bias, bordered.shape[3], output)
    return output


def conv_block_backward_numba(
    grad: np.ndarray, code: np.ndarray, input: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of input, weight and bias, as conv_block_backward's. Raises as conv_block_numba does."""
    check_grad(grad, code, _check(input, weight, None))
    if grad.dtype != input.dtype or code.dtype != np.uint8:
        raise TypeError(f"grad must be {input.dtype} and code uint8, not {grad.dtype} and {code.dtype}")
    n, c, h, w = input.shape
    o, _, kh, kw = weight.shape
    x_lines, x = _bordered(input, weight)
    lines, y = _bordered(np.broadcast_to(input.dtype.type(0), (n, o, h, w)), weight)  # the gradient before the pool
    set_threads()
    compiled_by_numba(_before_pool)(grad, code, y[:, :, kh // 2 :, kw // 2 :])
    turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    grad_input = np.empty((n, c, h, w), input.dtype)
    compiled_by_numba(_input_gradient)(lines, *_taps(turned, y), y.shape[3], grad_input)
    weights, offsets = _taps(weight, x)
    grad_weight = np.empty_like(weights[:o])
    start, width = kh // 2 * y.shape[3] + kw // 2, y.shape[3]  # where the picture begins within its borders
    compiled_by_numba(_weight_gradient)(x_lines, lines, offsets, start, h * width, y[0, 0].size, grad_weight)
    return grad_input, grad_weight[:, : c * kh * kw].reshape(weight.shape), y.sum((0, 2, 3))


def _check(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[int, ...]:
    """The output's shape. Compiled code looks at no bounds."""
    sides = tuple(weight.shape[2:])
    if len(sides) == 2 and not all(side % 2 for side in sides):
        raise ValueError(f"the numba variant takes odd kernel sizes, not {list(sides)}")
    half: Any = tuple(side // 2 for side in sides)
    shape = check(input, weight, bias, (1, 1), half if len(half) == 2 else (0, 0), True, True)
    for name, array in (("input", input), ("weight", weight), ("bias", bias)):
        if array is not None and (array.dtype not in (np.float32, np.float64) or array.dtype != input.dtype):
            raise TypeError(f"{name} must be float32 or float64, and all the same, not {array.dtype}")
    return shape


def _bordered(input: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, c·(h + kh − 1)·(w + kw − 1) and some zeros], and the same memory as [n, c, h + kh − 1, w + kw − 1]."""
    (n, c, h, w), (_, _, kh, kw) = input.shape, weight.shape
    shape = (c, h + kh - 1, w + kw - 1)
    size = shape[0] * shape[1] * shape[2]
    lines = np.zeros((n, size + kw + LANES), input.dtype)
    bordered = lines[:, :size].reshape(n, *shape)
    bordered[:, :, kh // 2 : kh // 2 + h, kw // 2 : kw // 2 + w] = input
    return lines, bordered


def _taps(weight: np.ndarray, bordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """weight as [o, taps] and each tap's place in a line, with zeros up to an even number of rows and fours of taps."""
    o, c, kh, kw = weight.shape
    _, _, height, width = bordered.shape
    offsets = (np.arange(c)[:, None, None] * height * width + np.arange(kh)[:, None] * width + np.arange(kw)).ravel()
    missing = -len(offsets) % 4
    return np.pad(weight.reshape(o, -1), ((0, o % 2), (0, missing))), np.pad(offsets, (0, missing))


def _sums_of_shifted(_prange: Any) -> Callable[..., None]:
    def add(line: Any, weights: Any, offsets: Any, y: Any, z: Any) -> None:
        for t in range(0, len(offsets), 4):  # two sums, four taps at a time: twelve loads and stores for 16 operations
            a, b, c, d = weights[0, t], weights[0, t + 1], weights[0, t + 2], weights[0, t + 3]
            e, f, g, h = weights[1, t], weights[1, t + 1], weights[1, t + 2], weights[1, t + 3]
            p, q, r, s = line[offsets[t] :], line[offsets[t + 1] :], line[offsets[t + 2] :], line[offsets[t + 3] :]
            for k in range(len(y)):
                y[k] += a * p[k] + b * q[k] + c * r[k] + d * s[k]
                z[k] += e * p[k] + f * q[k] + g * r[k] + h * s[k]

    return add


def _forward(prange: Any) -> Callable[..., None]:
    add = compiled_by_numba(_sums_of_shifted, parallel=False)

    def forward(x: Any, weight: Any, offsets: Any, bias: Any, width: int, output: Any) -> None:
        n, o, rows, cols = output.shape
        for image in prange(n):
            y = np.empty((2, (2 * rows * width + LANES - 1) // LANES * LANES), x.dtype)
            for channel in range(o):
                if channel % 2 == 0:
                    y[:] = 0
                    add(x[image], weight[channel : channel + 2], offsets, y[0], y[1])
                for row in range(rows):
                    top, below = y[channel % 2, 2 * row * width :], y[channel % 2, (2 * row + 1) * width :]
                    for col in range(cols):
                        best = max(top[2 * col], top[2 * col + 1], below[2 * col], below[2 * col + 1])
                        output[image, channel, row, col] = max(best + bias[channel], y.dtype.type(0))

    return forward


def _before_pool(prange: Any) -> Callable[..., None]:
    def spread(grad: Any, code: Any, y: Any) -> None:
        n, o, rows, cols = grad.shape
        for image in prange(n):
            for channel in range(o):
                for row in range(rows):
                    for col in range(cols):
                        k = code[image, row, col, channel]
                        if k < 4:
                            y[image, channel, 2 * row + k // 2, 2 * col + k % 2] = grad[image, channel, row, col]

    return spread


def _input_gradient(prange: Any) -> Callable[..., None]:
    add = compiled_by_numba(_sums_of_shifted, parallel=False)

    def gradient(y: Any, turned: Any, offsets: Any, width: int, grad: Any) -> None:
        n, channels, h, w = grad.shape
        for image in prange(n):
            x = np.empty((2, (h * width + LANES - 1) // LANES * LANES), y.dtype)
            for channel in range(channels):
                if channel % 2 == 0:
                    x[:] = 0
                    add(y[image], turned[channel : channel + 2], offsets, x[0], x[1])
                for row in range(h):
                    grad[image, channel, row] = x[channel % 2, row * width : row * width + w]

    return gradient


def _weight_gradient(prange: Any) -> Callable[..., None]:
    def gradient(x: Any, y: Any, offsets: Any, start: int, length: int, plane: int, grad: Any) -> None:
        for channel in prange(len(grad)):
            grad[channel] = 0
            for image in range(len(y)):
                line = y[image, channel * plane + start :]
                for t in range(0, len(offsets), 4):
                    p, q = x[image, offsets[t] :], x[image, offsets[t + 1] :]
                    r, s = x[image, offsets[t + 2] :], x[image, offsets[t + 3] :]
                    a = b = c = d = x.dtype.type(0)
                    for k in range(length):
                        a += line[k] * p[k]
                        b += line[k] * q[k]
                        c += line[k] * r[k]
                        d += line[k] * s[k]
                    grad[channel, t] += a
                    grad[channel, t + 1] += b
                    grad[channel, t + 2] += c
                    grad[channel, t + 3] += d

    return gradient
