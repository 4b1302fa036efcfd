"""What conv_block refuses; hw4fast.kernels.conv_block is the card."""

from __future__ import annotations

from typing import Any

from hw4fast.kernels.conv_block_cases import LARGEST_KERNEL, Pair

LARGEST = 2**31 - 1  # stride and padding


def output_shape(input_shape: Any, weight_shape: Any, stride: Pair, padding: Pair, pool: bool) -> tuple[int, ...]:
    """[n, o, rows, cols]."""
    sides = [
        (size + 2 * pad - kernel) // step + 1
        for size, kernel, step, pad in zip(input_shape[2:], weight_shape[2:], stride, padding, strict=True)
    ]
    return (input_shape[0], weight_shape[0], *(side // 2 if pool else side for side in sides))


def check(
    input: Any, weight: Any, bias: Any, stride: Pair, padding: Pair, relu: bool, pool: bool, groups: int = 1
) -> tuple[int, ...]:
    """What every face checks, on anything with .shape and .ndim. Returns the output's shape, raises ValueError."""
    if input.ndim != 4 or 0 in input.shape[1:]:
        raise ValueError(f"input must be [n, c, h, w], not {list(input.shape)}")
    channels = input.shape[1]
    if groups not in (1, channels):
        raise ValueError(f"groups must be 1 or the {channels} channels of the input, not {groups}")
    each, filters = channels // groups, groups if groups > 1 else "o"
    if weight.ndim != 4 or weight.shape[1] != each or weight.shape[0] < 1:
        raise ValueError(f"weight must be [{filters}, {each}, kh, kw], not {list(weight.shape)}; groups = {groups}")
    if groups > 1 and weight.shape[0] != groups:
        raise ValueError(f"with groups = {groups} weight must be {groups} filters, not {weight.shape[0]}")
    if bias is not None and (bias.ndim != 1 or bias.shape[0] != weight.shape[0]):
        raise ValueError(f"bias must be [{weight.shape[0]}], not {list(bias.shape)}")
    check_options(weight.shape[2:], stride, padding, relu, pool)
    shape = output_shape(input.shape, weight.shape, stride, padding, pool)
    if min(shape[2:]) < 1:
        raise ValueError(f"an input of {list(input.shape[2:])} is too small for this kernel{' and pool' * pool}")
    return shape


def check_options(kernel: Any, stride: Pair, padding: Pair, relu: bool, pool: bool) -> None:
    """What can be checked before there is an input; kernel: [kh, kw]. Raises ValueError."""
    if not all(1 <= side <= LARGEST_KERNEL for side in kernel):
        raise ValueError(f"kernel sizes must lie in 1…{LARGEST_KERNEL}, not be {list(kernel)}")
    if len(stride) != 2 or min(stride) < 1 or max(stride) > LARGEST:
        raise ValueError(f"stride must be two numbers in 1…{LARGEST}, not {stride}")
    if len(padding) != 2 or min(padding) < 0 or max(padding) > LARGEST:
        raise ValueError(f"padding must be two numbers in 0…{LARGEST}, not {padding}")
    if relu not in (True, False):
        raise ValueError(f"relu must be True or False, not {relu!r}")
    if pool not in (True, False):
        raise ValueError(f"pool must be True or False, not {pool!r}; the pool is always 2×2")


def check_grad(grad: Any, code: Any, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless grad is `shape` = [n, o, rows, cols] and code the same, channels last."""
    n, o, rows, cols = shape
    if tuple(grad.shape) != shape:
        raise ValueError(f"grad must be {list(shape)}, not {list(grad.shape)}")
    if tuple(code.shape) != (n, rows, cols, o):
        raise ValueError(f"code must be {[n, rows, cols, o]}, not {list(code.shape)}")
