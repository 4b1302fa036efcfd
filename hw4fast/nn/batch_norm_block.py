"""batch_norm_block as a torch operator, a function and a module: schema, kernels, fake kernel and autograd."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from hw4fast.kernels import batch_norm_block as card
from hw4fast.kernels import compiled
from hw4fast.nn import batch_norm_block_cuda
from hw4fast.nn.batch_norm_block_cuda import parameters_dtype
from hw4fast.nn.operators import (
    DTYPES,
    HALVES,
    cast_up,
    check_tensors,
    is_plain,
    library,
    no_tensors,
    refuse_second_derivative,
    threads,
)

_C = compiled()
Results = tuple[Tensor, Tensor, Tensor, Tensor]  # output, code, mean, var
Gradients = tuple[Tensor, Tensor, Tensor]

library.define(
    "batch_norm_block(Tensor input, Tensor weight, Tensor bias, Tensor? mean, Tensor? var, float eps, bool relu,"
    " bool pool, bool want_code) -> (Tensor output, Tensor code, Tensor used_mean, Tensor used_var)"
)
library.define(
    "batch_norm_block_backward(Tensor grad, Tensor code, Tensor input, Tensor weight, Tensor mean, Tensor var,"
    " bool training, float eps, bool relu, bool pool, bool[3] want)"
    " -> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias)"
)
_batch_norm_block = torch.ops.hw4fast.batch_norm_block.default
_batch_norm_block_backward = torch.ops.hw4fast.batch_norm_block_backward.default


def _check(input: Tensor, eps: float, relu: bool, pool: bool, **others: Tensor | None) -> tuple[int, int, int, int]:
    """Shapes, values and dtypes: for the function, and for the operators, which anyone can call. The output's shape."""
    channels = {name: others.get(name) for name in ("weight", "bias", "mean", "var")}
    shape = card.check(input, eps=eps, relu=relu, pool=pool, **channels)
    if input.dtype not in (batch_norm_block_cuda.DTYPES if input.is_cuda else DTYPES):
        known = "float32, float64, bfloat16 or float16" if input.is_cuda else "float32 or float64"
        raise TypeError(f"input must be {known}, not {input.dtype}")
    weight = others["weight"]
    assert weight is not None
    like = "weight" if input.is_cuda and input.dtype in HALVES and weight.dtype is torch.float32 else "input"
    for name, tensor in others.items():
        owner = "input" if name == "grad" else like
        wanted = weight.dtype if owner == "weight" else input.dtype
        if name in ("mean", "var") and tensor is not None and tensor.dtype is parameters_dtype(input):
            continue  # a batch's of halves are float32, whatever its parameters are
        if tensor is not None and tensor.dtype != wanted:
            raise TypeError(f"{name} must be {wanted} like {owner}, not {tensor.dtype}")
    return shape


def _outputs(
    input: Tensor, weight: Tensor, mean: Tensor | None, var: Tensor | None, pool: bool, want_code: bool
) -> Results:
    """Uninitialised output and, if asked for, code; the mean and the variance that are given, else uninitialised."""
    n, c, h, w = input.shape
    rows, cols = (h // 2, w // 2) if pool else (h, w)
    output = input.new_empty((n, rows, cols, c)).permute(0, 3, 1, 2)
    code = input.new_empty((n, rows, cols, c) if want_code else (0,), dtype=torch.uint8)
    exact = parameters_dtype(input)
    used = [weight.new_empty((c,), dtype=exact) if given is None else given.clone() for given in (mean, var)]
    return output, code, used[0], used[1]


def _forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    relu: bool,
    pool: bool,
    want_code: bool,
) -> Results:
    """The kernel, of checked tensors."""
    output, code, used_mean, used_var = _outputs(input, weight, mean, var, pool, want_code)
    if input.is_cuda:
        used = used_mean, used_var
        batch_norm_block_cuda.forward(input, weight, bias, mean is None, eps, relu, pool, output, code, used)
        return output, code, *used
    weight, bias = weight.contiguous(), bias.contiguous()
    _C.batch_norm_block(
        input.dtype is torch.float64,
        input.data_ptr(),
        input.stride(),
        weight.data_ptr(),
        bias.data_ptr(),
        used_mean.data_ptr(),
        used_var.data_ptr(),
        mean is None,
        output.data_ptr(),
        code.data_ptr() if want_code else 0,
        input.shape,
        eps,
        relu,
        pool,
        "",  # positional: pybind11 takes a microsecond for keywords
        threads(),
    )
    return output, code, used_mean, used_var


def _batch_norm_block_op(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    relu: bool,
    pool: bool,
    want_code: bool,
) -> Results:
    _check(input, eps, relu, pool, weight=weight, bias=bias, mean=mean, var=var)
    check_tensors("batch_norm_block", input, weight, bias, mean, var, cuda=True)
    return _forward(input, weight, bias, mean, var, eps, relu, pool, want_code)


def _batch_norm_block_fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    relu: bool,
    pool: bool,
    want_code: bool,
) -> Results:
    return _outputs(input, weight, mean, var, pool, want_code)


def _gradients(input: Tensor, weight: Tensor, want: Any) -> Gradients:
    """Uninitialised gradients; those not wanted are empty."""
    n, c, h, w = input.shape
    grad_input = input.new_empty((n, h, w, c) if want[0] else (0, 0, 0, 0)).permute(0, 3, 1, 2)
    grad_weight, grad_bias = (weight.new_empty((c if wanted else 0,)) for wanted in want[1:])
    return grad_input, grad_weight, grad_bias


def _gradients_of(
    grad: Tensor,
    code: Tensor,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    training: bool,
    eps: float,
    relu: bool,
    pool: bool,
    want: Any,
) -> Gradients:
    """The kernel, of checked tensors. Codes are only compared with: any are safe."""
    gradients, code = _gradients(input, weight, want), code.contiguous()
    if input.is_cuda:
        codes = code if relu or pool else None
        return batch_norm_block_cuda.gradients_of(
            grad, codes, input, weight, mean, var, training, eps, pool, gradients, want
        )
    weight, mean, var = (tensor.contiguous() for tensor in (weight, mean, var))
    _C.batch_norm_block_backward(
        input.dtype is torch.float64,
        grad.data_ptr(),
        grad.stride(),
        code.data_ptr() if relu or pool else 0,
        input.data_ptr(),
        input.stride(),
        weight.data_ptr(),
        mean.data_ptr(),
        var.data_ptr(),
        training,
        *(gradient.data_ptr() if wanted else 0 for gradient, wanted in zip(gradients, want, strict=True)),
        input.shape,
        eps,
        pool,
        "",
        threads(),
    )
    return gradients


def _batch_norm_block_backward_op(
    grad: Tensor,
    code: Tensor,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    training: bool,
    eps: float,
    relu: bool,
    pool: bool,
    want: list[bool],
) -> Gradients:
    shape = _check(input, eps, relu, pool, weight=weight, mean=mean, var=var, grad=grad)
    if tuple(grad.shape) != shape:
        raise ValueError(f"grad must be {list(shape)}, not {list(grad.shape)}")
    if relu or pool:
        card.check_grad(grad, code, shape)
    if code.dtype != torch.uint8:
        raise TypeError(f"code must be uint8, not {code.dtype}")
    check_tensors("batch_norm_block_backward", grad, code, input, weight, mean, var, cuda=True)
    return _gradients_of(grad, code, input, weight, mean, var, training, eps, relu, pool, want)


def _batch_norm_block_backward_fake(
    grad: Tensor,
    code: Tensor,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    training: bool,
    eps: float,
    relu: bool,
    pool: bool,
    want: list[bool],
) -> Gradients:
    return _gradients(input, weight, want)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
    input, weight, _, mean, _, *ctx.options, ctx.has_code = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(input, weight, *output[1:])
    ctx.training = mean is None


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    refuse_second_derivative("batch_norm_block", "torch's batch_norm, relu and max_pool2d")
    input, weight, code, mean, var = ctx.saved_tensors
    eps, relu, pool = ctx.options
    if (relu or pool) and not ctx.has_code:
        raise RuntimeError("batch_norm_block was called with want_code=False, so it has no gradient to give")
    want = list(ctx.needs_input_grad[:3])
    gradients = _batch_norm_block_backward(grad, code, input, weight, mean, var, ctx.training, eps, relu, pool, want)
    return (*(found if wanted else None for found, wanted in zip(gradients, want, strict=True)), *(None,) * 6)


for _device in ("CPU", "CUDA"):
    library.impl("batch_norm_block", _batch_norm_block_op, _device)
    library.impl("batch_norm_block_backward", _batch_norm_block_backward_op, _device)
torch.library.register_fake("hw4fast::batch_norm_block", _batch_norm_block_fake, lib=library)
torch.library.register_fake("hw4fast::batch_norm_block_backward", _batch_norm_block_backward_fake, lib=library)
torch.library.register_autograd("hw4fast::batch_norm_block", _backward, setup_context=_keep, lib=library)


class _Eager(torch.autograd.Function):
    """The operator's road past the dispatcher, as conv_block has it."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        eps: float,
        relu: bool,
        pool: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.training, ctx.options = mean is None, (eps, relu, pool)
        output, code, *used = _forward(input, weight, bias, mean, var, eps, relu, pool, relu or pool)
        ctx.save_for_backward(input, weight, code, *used)
        ctx.shapes = tuple((tensor.shape, tensor.dtype) for tensor in ctx.to_save)
        ctx.mark_non_differentiable(*used)
        ctx.set_materialize_grads(False)
        return output, used[0], used[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("batch_norm_block", "torch's batch_norm, relu and max_pool2d")
        if grad is None:
            return (None,) * 8
        saved, want = ctx.saved_tensors, ctx.needs_input_grad[:3]
        input, weight, code, mean, var = saved
        eps, relu, pool = ctx.options
        # neither saved_tensors_hooks nor module.double() has given them another shape or dtype since
        same = tuple((tensor.shape, tensor.dtype) for tensor in saved) == ctx.shapes and grad.dtype is input.dtype
        plain = same and is_plain(grad, *saved) and all(tensor.device == input.device for tensor in (grad, *saved))
        run = _gradients_of if plain else _batch_norm_block_backward
        gradients = run(grad, code, input, weight, mean, var, ctx.training, eps, relu, pool, list(want))
        return (*(found if wanted else None for found, wanted in zip(gradients, want, strict=True)), *(None,) * 5)


def batch_norm_block(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    eps: float = 1e-5,
    relu: bool = True,
    pool: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """max_pool2d(relu(batch_norm(input)), 2) in one pass, and the mean and the biased variance [c] it was normalised
    with, which carry no gradient; relu and pool may be left out.

    input: [n, c, h, w], weight and bias (γ, β): [c]; mean and var: [c], or both None for those of the batch; float32 or
    float64, on a GPU bfloat16 and float16, too, whose weight, bias, mean and var may be float32 (and those of a batch
    are); sums are double. NCHW and channels-last inputs are read where they lie; the output is channels-last in memory,
    of input's dtype. Under torch.autocast("cpu") a bfloat16 or float16 input is cast up: it is computed in float32, and
    returned so. Raises ValueError for a wrong shape or value, for a batch of one value per channel and for tensors on
    several devices, TypeError for a wrong type or dtype, NotImplementedError for a device other than the CPU and
    NVIDIA's GPUs. Differentiable once. See hw4fast.kernels.batch_norm_block for the formula and the float64 reference.
    """
    if not all(isinstance(tensor, Tensor) for tensor in (input, weight, bias)) or not all(
        tensor is None or isinstance(tensor, Tensor) for tensor in (mean, var)
    ):
        raise no_tensors({"input": input, "weight": weight, "bias": bias}, mean=mean, var=var)
    if input.dtype is not weight.dtype and not input.is_cuda:
        (input,) = cast_up(input)
    _check(input, eps, relu, pool, weight=weight, bias=bias, mean=mean, var=var)
    check_tensors("batch_norm_block", input, weight, bias, mean, var, cuda=True)
    for name, tensor in (("mean", mean), ("var", var)):
        if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name} must not require a gradient; there is none for it: take {name}.detach()")
    arguments = (input, weight, bias, mean, var, eps, relu, pool)
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (input, weight, bias))
    if not is_plain(input, weight, bias, mean, var):
        wanted = differentiated or torch.jit.is_tracing()  # a trace is checked under no_grad and must not differ there
        output, _, used_mean, used_var = _batch_norm_block(*arguments, (relu or pool) and wanted)
        return output, used_mean, used_var
    if differentiated:
        return _Eager.apply(*arguments)
    output, _, used_mean, used_var = _forward(*arguments, False)
    return output, used_mean, used_var


class BatchNormBlock(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d, with ReLU and 2×2 max-pool in the same pass: its parameters, its running statistics (of the
    unbiased variance), its state dict. A momentum of None makes them means over all batches, as in torch.

    Raises as `batch_norm_block` does, and when it is built for what needs no input to be wrong. What replaces batch
    normalisation by type, such as SyncBatchNorm.convert_sync_batchnorm, loses ReLU and pool.
    """

    relu: bool
    pool: bool

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        relu: bool = True,
        pool: bool = True,
    ) -> None:
        card.check_options(eps, relu, pool)
        if not isinstance(num_features, Integral) or num_features < 1:
            raise ValueError(f"num_features must be a whole number from 1 on, not {num_features!r}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in 0 … 1, or be None, not {momentum!r}")
        super().__init__(int(num_features), eps, momentum)
        self.relu, self.pool = relu, pool

    def forward(self, input: Tensor) -> Tensor:
        given = (None, None) if self.training else (self.running_mean, self.running_var)
        parameters = (self.weight, self.bias)
        output, mean, var = batch_norm_block(input, *parameters, *given, self.eps, self.relu, self.pool)
        if self.training and self.track_running_stats:
            self._follow(mean, var, input.numel() // input.shape[1])
        return output

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, m: int) -> None:
        """Moves the running statistics towards those of a batch of m values per channel."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((var * (m / (m - 1))).to(self.running_var.dtype), share)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}, pool={self.pool}"
