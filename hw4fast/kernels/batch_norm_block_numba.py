"""batch_norm_block and its gradients in numba: the batch's own statistics, ReLU and pool, float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hw4fast.kernels.batch_norm_block_checks import check, check_grad
from hw4fast.kernels.numba_variants import compiled_by_numba, set_threads


def batch_norm_block_numba(input: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """Output [n, c, rows, cols], channels-last in memory. Raises ValueError for a wrong shape, TypeError for dtype."""
    n, c, rows, cols = check(input, weight, bias, None, None, eps, True, True)
    if any(array.dtype != np.float32 for array in (input, weight, bias)):
        raise TypeError("the numba variant takes float32")
    x, output = np.ascontiguousarray(input.transpose(0, 2, 3, 1)), np.empty((n, rows, cols, c), np.float32)
    set_threads()
    mean, var = compiled_by_numba(_statistics)(x.reshape(n, -1, c))
    scale = weight / np.sqrt(var + eps)
    scale, shift = scale.astype(np.float32), (bias - mean * scale).astype(np.float32)
    compiled_by_numba(_normalised)(x, scale, shift, output)
    return output.transpose(0, 3, 1, 2)


def batch_norm_block_backward_numba(
    grad: np.ndarray, code: np.ndarray, input: np.ndarray, weight: np.ndarray, mean: np.ndarray, var: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of input, weight and bias, as batch_norm_block_backward's with the usual eps. Raises as the above."""
    check_grad(grad, code, check(input, weight, None, mean, var, 1e-5, True, True))
    if any(array.dtype != np.float32 for array in (grad, input, weight, mean, var)) or code.dtype != np.uint8:
        raise TypeError("the numba variant takes float32, and uint8 codes")
    x, g = (np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for array in (input, grad))
    inverse = (1 / np.sqrt(var + np.float32(1e-5))).astype(np.float32)
    set_threads()
    sums, products = compiled_by_numba(_gradient_sums)(g, code, x, mean)
    m = x[..., 0].size
    even, slope = (sums / m).astype(np.float32), (products * inverse * inverse / m).astype(np.float32)
    dx = np.empty_like(x)
    compiled_by_numba(_input_gradient)(g, code, x, mean, weight * inverse, even, slope, dx)
    return dx.transpose(0, 3, 1, 2), (products * inverse).astype(np.float32), sums.astype(np.float32)


def _statistics(prange: Any) -> Callable[..., Any]:
    def statistics(x: Any) -> Any:
        n, pixels, c = x.shape
        origin = x[0, 0].astype(np.float64)
        sums, squares = np.zeros((n, c)), np.zeros((n, c))
        for image in prange(n):
            for pixel in range(pixels):
                for k in range(c):
                    far = x[image, pixel, k] - origin[k]
                    sums[image, k] += far
                    squares[image, k] += far * far
        far = sums.sum(0) / (n * pixels)
        return origin + far, squares.sum(0) / (n * pixels) - far * far

    return statistics


def _normalised(prange: Any) -> Callable[..., None]:
    def normalised(x: Any, scale: Any, shift: Any, output: Any) -> None:
        n, rows, cols, c = output.shape
        for image in prange(n):
            for row in range(rows):
                for col in range(cols):
                    for k in range(c):
                        a = scale[k] * x[image, 2 * row, 2 * col, k]
                        b = scale[k] * x[image, 2 * row, 2 * col + 1, k]
                        d = scale[k] * x[image, 2 * row + 1, 2 * col, k]
                        e = scale[k] * x[image, 2 * row + 1, 2 * col + 1, k]
                        output[image, row, col, k] = max(max(a, b, d, e) + shift[k], np.float32(0))

    return normalised


def _gradient_sums(prange: Any) -> Callable[..., Any]:
    def gradient_sums(grad: Any, code: Any, x: Any, mean: Any) -> Any:
        n, rows, cols, c = grad.shape
        sums, products = np.zeros((n, c)), np.zeros((n, c))
        for image in prange(n):
            for row in range(rows):
                for col in range(cols):
                    for k in range(c):
                        place = code[image, row, col, k]
                        if place < 4:
                            g = grad[image, row, col, k]
                            sums[image, k] += g
                            far = x[image, 2 * row + place // 2, 2 * col + place % 2, k] - mean[k]
                            products[image, k] += g * far
        return sums.sum(0), products.sum(0)

    return gradient_sums


def _input_gradient(prange: Any) -> Callable[..., None]:
    def gradient(grad: Any, code: Any, x: Any, mean: Any, scale: Any, even: Any, slope: Any, dx: Any) -> None:
        n, h, w, c = x.shape
        for image in prange(n):
            for i in range(h):
                for j in range(w):
                    for k in range(c):
                        dx[image, i, j, k] = -scale[k] * (even[k] + (x[image, i, j, k] - mean[k]) * slope[k])
            for row in range(grad.shape[1]):
                for col in range(grad.shape[2]):
                    for k in range(c):
                        place = code[image, row, col, k]
                        if place < 4:
                            value = scale[k] * grad[image, row, col, k]
                            dx[image, 2 * row + place // 2, 2 * col + place % 2, k] += value

    return gradient
