"""conv_block on a GPU: what hw4fast/nn/conv_block.py calls there with checked tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hw4fast.nn import cuda

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WAYS = {"best": 0, "any": 1, "direct": 2, "tensor": 3}  # enum class Way of csrc/conv_block.cu; tests ask for each


def allows_tf32() -> bool:
    """Whether float32 convolutions may take tensor cores, which round factors to 11 bits: torch's own setting."""
    cudnn: Any = torch.backends.cudnn
    return cudnn.conv.fp32_precision == "tf32"


def _numbers(input: Tensor, weight: Tensor, options: Any) -> tuple[int, ...]:
    (down, across), (above, left), _relu, _pool, groups = options
    o, _, kh, kw = weight.shape
    return (*input.shape, o, kh, kw, groups, down, across, above, left)


def forward(
    input: Tensor, weight: Tensor, bias: Tensor | None, options: Any, output: Tensor, code: Tensor, way: str = "best"
) -> None:
    """Fills output and, unless it is empty, code."""
    _, _, relu, pool, _ = options
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    dtype, strides, numbers = cuda.CODES[input.dtype], input.stride(), _numbers(input, weight, options)
    tf32 = allows_tf32()
    _cuda = cuda.module()
    how = (relu, pool, tf32)
    size = cuda.asked(
        _cuda.conv_block_scratch, input, dtype, input.data_ptr(), strides, numbers, *how, False, WAYS[way]
    )
    scratch = cuda.scratch(input, size)
    addresses = (input, weight, bias, output, code, scratch)
    cuda.launch(_cuda.conv_block, input, dtype, tuple(map(cuda.address, addresses)), strides, numbers, *how, WAYS[way])


def gradients_of(
    grad: Tensor,
    code: Tensor,
    input: Tensor,
    weight: Tensor,
    options: Any,
    gradients: tuple[Tensor, Tensor, Tensor],
    want: Any,
    way: str = "best",
) -> None:
    """Fills those of the gradients that are wanted."""
    _, _, relu, pool, _ = options
    weight = weight.contiguous()
    if not any(want):
        return
    if grad.numel() == 0:
        for gradient in gradients:
            gradient.zero_()
        return
    dtype, strides, numbers = cuda.CODES[input.dtype], input.stride(), _numbers(input, weight, options)
    _cuda = cuda.module()
    how = (relu, pool, allows_tf32())
    size = cuda.asked(_cuda.conv_block_scratch, input, dtype, input.data_ptr(), strides, numbers, *how, True, WAYS[way])
    scratch = cuda.scratch(input, size)
    inputs = (grad, code if relu or pool else None, input, weight, scratch)
    outputs = tuple(cuda.address(found) if wanted else 0 for found, wanted in zip(gradients, want, strict=True))
    cuda.launch(
        _cuda.conv_block_backward,
        input,
        dtype,
        tuple(map(cuda.address, inputs)),
        outputs,
        grad.stride(),
        strides,
        numbers,
        *how,
        WAYS[way],
    )
