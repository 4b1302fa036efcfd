"""batch_norm_block on a GPU: what hw4fast/nn/batch_norm_block.py calls there with checked tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hw4fast.nn import cuda

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def parameters_dtype(input: Tensor) -> torch.dtype:
    """What the kernels read the parameters and statistics as: a half's are float32."""
    return torch.float64 if input.dtype is torch.float64 else torch.float32


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    eps: float,
    relu: bool,
    pool: bool,
    output: Tensor,
    code: Tensor,
    used: tuple[Tensor, Tensor],
) -> None:
    """Fills output, code unless it is empty, and in training the mean and the variance of `used`, of
    `parameters_dtype`, which are read else."""
    _cuda, dtype = cuda.module(), parameters_dtype(input)
    weight, bias, mean, var = (tensor.to(dtype).contiguous() for tensor in (weight, bias, *used))
    scratch = cuda.scratch(input, _cuda.batch_norm_block_scratch(input.shape[1]))
    cuda.launch(
        _cuda.batch_norm_block,
        input,
        cuda.CODES[input.dtype],
        input.data_ptr(),
        input.stride(),
        weight.data_ptr(),
        bias.data_ptr(),
        mean.data_ptr(),
        var.data_ptr(),
        training,
        output.data_ptr(),
        cuda.address(code),
        scratch.data_ptr(),
        input.shape,
        eps,
        relu,
        pool,
    )


def gradients_of(
    grad: Tensor,
    code: Tensor | None,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    training: bool,
    eps: float,
    pool: bool,
    gradients: tuple[Tensor, Tensor, Tensor],
    want: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of the gradients that are wanted, the input's in the memory given for it."""
    _cuda, dtype, kept = cuda.module(), parameters_dtype(input), weight.dtype
    weight, mean, var = (tensor.to(dtype).contiguous() for tensor in (weight, mean, var))
    grad_input, *others = gradients
    grad_weight, grad_bias = (t if kept is dtype else torch.empty_like(t, dtype=dtype) for t in others)
    if code is not None and code.data_ptr() % 4:  # someone's view: four codes are read at a time
        code = code.clone()
    scratch = cuda.scratch(input, _cuda.batch_norm_block_scratch(input.shape[1]))
    made = (grad_input, grad_weight, grad_bias)
    cuda.launch(
        _cuda.batch_norm_block_backward,
        input,
        cuda.CODES[input.dtype],
        grad.data_ptr(),
        grad.stride(),
        cuda.address(code),
        input.data_ptr(),
        input.stride(),
        weight.data_ptr(),
        mean.data_ptr(),
        var.data_ptr(),
        training,
        *(cuda.address(tensor) if wanted else 0 for tensor, wanted in zip(made, want, strict=True)),
        scratch.data_ptr(),
        input.shape,
        eps,
        pool,
    )
    return grad_input, grad_weight.to(kept), grad_bias.to(kept)
