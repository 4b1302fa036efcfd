"""What batch_norm_block refuses; hw4fast.kernels.batch_norm_block is the card."""

from __future__ import annotations

from typing import Any


def check(
    input: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float, relu: bool, pool: bool
) -> tuple[int, int, int, int]:
    """What every face checks, on anything with .shape and .ndim. Returns the output's shape, raises ValueError."""
    if input.ndim != 4 or 0 in input.shape[1:]:
        raise ValueError(f"input must be [n, c, h, w], not {list(input.shape)}")
    n, c, h, w = input.shape
    for name, array in (("weight", weight), ("bias", bias), ("mean", mean), ("var", var)):
        if array is not None and tuple(array.shape) != (c,):
            raise ValueError(f"{name} must be [{c}], one number per channel, not {list(array.shape)}")
    if (mean is None) != (var is None):
        raise ValueError("mean and var go together: give both, or neither for those of the batch")
    check_options(eps, relu, pool)
    if pool and min(h, w) < 2:
        raise ValueError(f"an input of {[h, w]} is too small for the pool")
    if mean is None and n * h * w < 2:
        raise ValueError(f"an input of {list(input.shape)} has no two values per channel, so no variance")
    return (n, c, h // 2, w // 2) if pool else (n, c, h, w)


def check_options(eps: float, relu: bool, pool: bool) -> None:
    """What can be checked before there is an input. Raises ValueError."""
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps must be 0 or more, not {eps}")
    for name, value in (("relu", relu), ("pool", pool)):
        if value not in (True, False):
            raise ValueError(f"{name} must be True or False, not {value!r}")


def check_grad(grad: Any, code: Any, shape: tuple[int, int, int, int]) -> None:
    """Raises ValueError unless grad is `shape` = [n, c, rows, cols] and code the same, channels last."""
    n, c, rows, cols = shape
    if tuple(grad.shape) != shape:
        raise ValueError(f"grad must be {list(shape)}, not {list(grad.shape)}")
    if tuple(code.shape) != (n, rows, cols, c):
        raise ValueError(f"code must be {[n, rows, cols, c]}, not {list(code.shape)}")
