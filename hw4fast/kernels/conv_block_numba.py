"""conv_block and its gradients in numba: stride 1, "same" padding of odd kernels, ReLU and pool.

A bordered picture is one line of numbers, [c, h + kh − 1, w + kw − 1] without its brackets. An output is then a sum of
shifted lines, each times one weight: long loops that LLVM turns into vectors. What such a line holds between two rows
of the picture is computed and left aside, or meets the zeros of a border.

Each loop has four output channels and four taps written out, for what is loaded once is then used four times: twelve
loads and stores for sixteen multiplications and additions, where one channel and one tap would need three for one.
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
    fours = (n, o + -o % 4, h, w)
    lines, y = _bordered(np.broadcast_to(input.dtype.type(0), fours), weight)  # the gradient before the pool
    set_threads()
    compiled_by_numba(_before_pool)(grad, code, y[:, :, kh // 2 :, kw // 2 :])
    turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    grad_input = np.empty((n, c, h, w), input.dtype)
    compiled_by_numba(_input_gradient)(lines, *_taps(turned, y), y.shape[3], grad_input)
    weights, offsets = _taps(weight, x)
    grad_weight = np.empty_like(weights)
    start, width = kh // 2 * y.shape[3] + kw // 2, y.shape[3]  # where the picture begins within its borders
    compiled_by_numba(_weight_gradient)(x_lines, lines, offsets, start, h * width, y[0, 0].size, grad_weight)
    return grad_input, grad_weight[:o, : c * kh * kw].reshape(weight.shape), y[:, :o].sum((0, 2, 3))


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
    """weight as [o, taps] and each tap's place in a line, with zeros up to fours of rows and fours of taps."""
    o, c, kh, kw = weight.shape
    _, _, height, width = bordered.shape
    offsets = (np.arange(c)[:, None, None] * height * width + np.arange(kh)[:, None] * width + np.arange(kw)).ravel()
    missing = -len(offsets) % 4
    return np.pad(weight.reshape(o, -1), ((0, -o % 4), (0, missing))), np.pad(offsets, (0, missing))


def _sums_of_shifted(_prange: Any) -> Callable[..., None]:
    def add(line: Any, weights: Any, offsets: Any, sums: Any) -> None:
        y0, y1, y2, y3 = sums[0], sums[1], sums[2], sums[3]
        for t in range(0, len(offsets), 4):
            a0, b0, c0, d0 = weights[0, t], weights[0, t + 1], weights[0, t + 2], weights[0, t + 3]
            a1, b1, c1, d1 = weights[1, t], weights[1, t + 1], weights[1, t + 2], weights[1, t + 3]
            a2, b2, c2, d2 = weights[2, t], weights[2, t + 1], weights[2, t + 2], weights[2, t + 3]
            a3, b3, c3, d3 = weights[3, t], weights[3, t + 1], weights[3, t + 2], weights[3, t + 3]
            p, q, r, s = line[offsets[t] :], line[offsets[t + 1] :], line[offsets[t + 2] :], line[offsets[t + 3] :]
            for k in range(sums.shape[1]):
                a, b, c, d = p[k], q[k], r[k], s[k]
                y0[k] += a0 * a + b0 * b + c0 * c + d0 * d
                y1[k] += a1 * a + b1 * b + c1 * c + d1 * d
                y2[k] += a2 * a + b2 * b + c2 * c + d2 * d
                y3[k] += a3 * a + b3 * b + c3 * c + d3 * d

    return add


def _forward(prange: Any) -> Callable[..., None]:
    add = compiled_by_numba(_sums_of_shifted, parallel=False)

    def forward(x: Any, weight: Any, offsets: Any, bias: Any, width: int, output: Any) -> None:
        n, o, rows, cols = output.shape
        for image in prange(n):
            y = np.empty((4, (2 * rows * width + LANES - 1) // LANES * LANES), x.dtype)
            for channel in range(o):
                if channel % 4 == 0:
                    y[:] = 0
                    add(x[image], weight[channel : channel + 4], offsets, y)
                for row in range(rows):
                    top, below = y[channel % 4, 2 * row * width :], y[channel % 4, (2 * row + 1) * width :]
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
            x = np.empty((4, (h * width + LANES - 1) // LANES * LANES), y.dtype)
            for channel in range(channels):
                if channel % 4 == 0:
                    x[:] = 0
                    add(y[image], turned[channel : channel + 4], offsets, x)
                for row in range(h):
                    grad[image, channel, row] = x[channel % 4, row * width : row * width + w]

    return gradient


def _weight_gradient(prange: Any) -> Callable[..., None]:
    def gradient(x: Any, y: Any, offsets: Any, start: int, length: int, plane: int, grad: Any) -> None:
        for four in prange(len(grad) // 4):
            own = grad[4 * four : 4 * four + 4]
            own[:] = 0
            for image in range(len(y)):
                y0, y1 = y[image, 4 * four * plane + start :], y[image, (4 * four + 1) * plane + start :]
                y2, y3 = y[image, (4 * four + 2) * plane + start :], y[image, (4 * four + 3) * plane + start :]
                for t in range(0, len(offsets), 4):
                    p, q = x[image, offsets[t] :], x[image, offsets[t + 1] :]
                    r, s = x[image, offsets[t + 2] :], x[image, offsets[t + 3] :]
                    a0 = b0 = c0 = d0 = a1 = b1 = c1 = d1 = x.dtype.type(0)
                    a2 = b2 = c2 = d2 = a3 = b3 = c3 = d3 = x.dtype.type(0)
                    for k in range(length):
                        a, b, c, d = p[k], q[k], r[k], s[k]
                        e = y0[k]
                        a0, b0, c0, d0 = a0 + e * a, b0 + e * b, c0 + e * c, d0 + e * d
                        e = y1[k]
                        a1, b1, c1, d1 = a1 + e * a, b1 + e * b, c1 + e * c, d1 + e * d
                        e = y2[k]
                        a2, b2, c2, d2 = a2 + e * a, b2 + e * b, c2 + e * c, d2 + e * d
                        e = y3[k]
                        a3, b3, c3, d3 = a3 + e * a, b3 + e * b, c3 + e * c, d3 + e * d
                    for i, sums in enumerate(((a0, b0, c0, d0), (a1, b1, c1, d1), (a2, b2, c2, d2), (a3, b3, c3, d3))):
                        for j, value in enumerate(sums):
                            own[i, t + j] += value

    return gradient
