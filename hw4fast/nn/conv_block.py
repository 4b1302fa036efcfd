"""conv_block as a torch operator, a function and a module: schema, CPU kernel, fake kernel and autograd together."""

from __future__ import annotations

import math
import weakref
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from hw4fast.kernels import compiled
from hw4fast.kernels import conv_block as card
from hw4fast.nn import conv_block_cuda
from hw4fast.nn.operators import (
    DTYPES,
    cast_up,
    check_tensors,
    is_plain,
    library,
    no_tensors,
    pair,
    refuse_second_derivative,
    threads,
)

_C = compiled()
Pair = tuple[int, int]
Shape = tuple[int, ...]  # n, o, rows, cols
Options = tuple[Any, Any, bool, bool, int]  # stride, padding, relu, pool, groups
Gradients = tuple[Tensor, Tensor, Tensor]

library.define(
    "conv_block(Tensor input, Tensor weight, Tensor? bias, SymInt[2] stride, SymInt[2] padding, bool relu, bool pool,"
    " SymInt groups, bool want_code) -> (Tensor output, Tensor code)"
)
library.define(
    "conv_block_backward(Tensor grad, Tensor code, Tensor input, Tensor weight, SymInt[2] stride, SymInt[2] padding,"
    " bool relu, bool pool, SymInt groups, bool[3] want) -> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias)"
)
_conv_block = torch.ops.hw4fast.conv_block.default
_conv_block_backward = torch.ops.hw4fast.conv_block_backward.default


def _check(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, relu: bool, pool: bool, groups: int
) -> Shape:
    """Shapes, values and dtypes: for the function, and for the operators, which anyone can call. The output's shape."""
    shape = card.check(input, weight, bias, stride, padding, relu, pool, groups)
    if input.dtype not in (conv_block_cuda.DTYPES if input.is_cuda else DTYPES):
        known = "float32, float64, bfloat16 or float16" if input.is_cuda else "float32 or float64"
        raise TypeError(f"input must be {known}, not {input.dtype}")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != input.dtype:
            raise TypeError(f"{name} must be {input.dtype} like input, not {tensor.dtype}")
    return shape


def _outputs(input: Tensor, shape: Shape, want_code: bool) -> tuple[Tensor, Tensor]:
    """Uninitialised output and, if asked for, code."""
    n, o, rows, cols = shape
    output = torch.empty(
        shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last
    )  # [n, rows, cols, o] in memory
    return output, input.new_empty((n, rows, cols, o) if want_code else (0,), dtype=torch.uint8)


def _forward(
    input: Tensor, weight: Tensor, bias: Tensor | None, options: Options, shape: Shape, want_code: bool
) -> tuple[Tensor, Tensor]:
    """The kernel, of checked tensors."""
    stride, padding, relu, pool, groups = options
    output, code = _outputs(input, shape, want_code)
    if input.is_cuda:
        conv_block_cuda.forward(input, weight, bias, options, output, code)
        return output, code
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    _C.conv_block(
        input.dtype is torch.float64,
        input.data_ptr(),
        input.stride(),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        output.data_ptr(),
        code.data_ptr() if want_code else 0,
        input.shape,
        (weight.shape[0], *weight.shape[2:], groups),
        stride,
        padding,
        relu,
        pool,
        "",  # positional: pybind11 takes a microsecond for keywords
        threads(),
    )
    return output, code


def _conv_block_op(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    relu: bool,
    pool: bool,
    groups: int,
    want_code: bool,
) -> tuple[Tensor, Tensor]:
    shape = _check(input, weight, bias, stride, padding, relu, pool, groups)
    check_tensors("conv_block", input, weight, bias, cuda=True)
    return _forward(input, weight, bias, (stride, padding, relu, pool, groups), shape, want_code)


def _conv_block_fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    relu: bool,
    pool: bool,
    groups: int,
    want_code: bool,
) -> tuple[Tensor, Tensor]:
    return _outputs(input, card.output_shape(input.shape, weight.shape, stride, padding, pool), want_code)


def _gradients(input: Tensor, weight: Tensor, want: Any) -> Gradients:
    """Uninitialised gradients; those not wanted are empty."""
    n, c, h, w = input.shape
    grad_input = input.new_empty((n, h, w, c) if want[0] else (0, 0, 0, 0)).permute(0, 3, 1, 2)
    grad_weight = weight.new_empty(weight.shape if want[1] else (0,))
    return grad_input, grad_weight, weight.new_empty((weight.shape[0] if want[2] else 0,))


def _gradients_of(
    grad: Tensor, code: Tensor, input: Tensor, weight: Tensor, options: Options, want: Any, is_own_code: bool
) -> Gradients:
    """The kernel, of checked tensors; is_own_code: the codes are those of _forward, and need not be looked through."""
    stride, padding, relu, pool, groups = options
    gradients = _gradients(input, weight, want)
    if input.is_cuda:
        conv_block_cuda.gradients_of(grad, code, input, weight, options, gradients, want)
        return gradients
    weight = weight.contiguous()
    _C.conv_block_backward(
        input.dtype is torch.float64,
        grad.data_ptr(),
        grad.stride(),
        code.data_ptr() if relu or pool else 0,
        is_own_code,
        input.data_ptr(),
        input.stride(),
        weight.data_ptr(),
        *(gradient.data_ptr() if wanted else 0 for gradient, wanted in zip(gradients, want, strict=True)),
        input.shape,
        (weight.shape[0], *weight.shape[2:], groups),
        stride,
        padding,
        relu,
        pool,
        "",  # positional: pybind11 takes a microsecond for keywords
        threads(),
    )
    return gradients


def _conv_block_backward_op(
    grad: Tensor,
    code: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    relu: bool,
    pool: bool,
    groups: int,
    want: list[bool],
) -> Gradients:
    shape = _check(input, weight, None, stride, padding, relu, pool, groups)
    if relu or pool:
        card.check_grad(grad, code, shape)
    elif tuple(grad.shape) != shape:
        raise ValueError(f"grad must be {list(shape)}, not {list(grad.shape)}")
    if grad.dtype != input.dtype or code.dtype != torch.uint8:
        raise TypeError(f"grad must be {input.dtype} and code uint8, not {grad.dtype} and {code.dtype}")
    check_tensors("conv_block_backward", grad, code, input, weight, cuda=True)
    options = (stride, padding, relu, pool, groups)
    return _gradients_of(grad, code.contiguous(), input, weight, options, want, False)


def _conv_block_backward_fake(
    grad: Tensor,
    code: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    relu: bool,
    pool: bool,
    groups: int,
    want: list[bool],
) -> Gradients:
    return _gradients(input, weight, want)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, weight, bias, *ctx.options, want_code = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(input, weight, output[1])
    ctx.has_code = want_code
    ctx.has_bias = bias is not None


def _backward(ctx: Any, grad: Tensor, _grad_code: Tensor) -> tuple[Tensor | None, ...]:
    refuse_second_derivative("conv_block", "torch's conv2d, relu and max_pool2d")
    input, weight, code = ctx.saved_tensors
    *_, relu, pool, _groups = ctx.options
    if (relu or pool) and not ctx.has_code:
        raise RuntimeError("conv_block was called with want_code=False, so it has no gradient to give")
    want = [*ctx.needs_input_grad[:2], ctx.has_bias and ctx.needs_input_grad[2]]
    gradients = _conv_block_backward(grad, code, input, weight, *ctx.options, want)
    return (*(gradient if wanted else None for gradient, wanted in zip(gradients, want, strict=True)), *(None,) * 6)


for _device in ("CPU", "CUDA"):
    library.impl("conv_block", _conv_block_op, _device)
    library.impl("conv_block_backward", _conv_block_backward_op, _device)
torch.library.register_fake("hw4fast::conv_block", _conv_block_fake, lib=library)
torch.library.register_fake("hw4fast::conv_block_backward", _conv_block_backward_fake, lib=library)
torch.library.register_autograd("hw4fast::conv_block", _backward, setup_context=_keep, lib=library)


class _Eager(torch.autograd.Function):
    """The operator's road past the dispatcher, as the losses have it: half of 160 µs, forward and backward."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, options: Options, shape: Shape) -> Tensor:
        _, _, relu, pool, _ = ctx.options = options
        output, code = _forward(input, weight, bias, options, shape, relu or pool)
        ctx.save_for_backward(input, weight, code)
        ctx.kept, ctx.shapes = (weakref.ref(input), weakref.ref(weight), weakref.ref(code)), (input.shape, weight.shape)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("conv_block", "torch's conv2d, relu and max_pool2d")
        input, weight, code = ctx.saved_tensors
        want = ctx.needs_input_grad[:3]
        kept_input, kept_weight, kept_code = ctx.kept
        if (
            # no saved_tensors_hooks gave back something else: the codes are those that the kernel wrote
            kept_input() is input
            and kept_weight() is weight
            and kept_code() is code
            # nor has their owner converted them since, as module.double() does
            and input.dtype is grad.dtype
            and weight.dtype is grad.dtype
            and (input.shape, weight.shape) == ctx.shapes
            and input.device == weight.device == grad.device
            and is_plain(grad)  # a negative or batched one has no memory of its own to be read
        ):
            gradients = _gradients_of(grad, code, input, weight, ctx.options, want, True)
        else:
            gradients = _conv_block_backward(grad, code, input, weight, *ctx.options, want)
        return (*(found if wanted else None for found, wanted in zip(gradients, want, strict=True)), None, None)


def _autocast(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Under torch.autocast("cuda") in its dtype, but for float64."""
    if not torch.is_autocast_enabled("cuda"):
        return tensors
    dtype = torch.get_autocast_dtype("cuda")
    return tuple(t if t is None or t.dtype is torch.float64 else t.to(dtype) for t in tensors)


def conv_block(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    relu: bool = True,
    pool: bool = True,
    groups: int = 1,
) -> Tensor:
    """max_pool2d(relu(conv2d(input, weight, bias, stride, padding, 1, groups)), 2) in one pass; relu and pool may be
    left out.

    input: [n, c, h, w], weight: [o, c, kh, kw], kernel sizes 1 to 7, bias: [o] or None; float32 or float64, on a GPU
    bfloat16 and float16, too, with sums in float32.
    stride, padding: (down, across), or one number for both. groups: 1, or c with a weight [c, 1, kh, kw], one filter
    per channel.
    NCHW and channels-last inputs are read where they lie; the output [n, o, rows, cols] is channels-last in memory.
    Under torch.autocast("cpu") a bfloat16 or float16 input is cast up: it is computed in float32, and returned so;
    under torch.autocast("cuda") all are cast to its dtype, as torch does with convolutions. On a GPU float32 goes to
    tensor cores where torch.backends.cudnn.conv.fp32_precision is "tf32".
    Raises ValueError for a wrong shape or value and for tensors on several devices, TypeError for a wrong type or
    dtype, NotImplementedError for a device other than the CPU and NVIDIA's GPUs. Differentiable once.
    See hw4fast.kernels.conv_block for the formula and the float64 reference.
    """
    if not (isinstance(input, Tensor) and isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor))):
        raise no_tensors({"input": input, "weight": weight}, bias=bias)
    if input.is_cuda:
        input, weight, bias = _autocast(input, weight, bias)
    elif input.dtype is not weight.dtype:
        (input,) = cast_up(input)
    strides, borders = pair(stride, "stride"), pair(padding, "padding")
    shape = _check(input, weight, bias, strides, borders, relu, pool, groups)
    check_tensors("conv_block", input, weight, bias, cuda=True)
    differentiated = torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )
    options = (strides, borders, relu, pool, groups)
    if not is_plain(input, weight, bias):
        wanted = differentiated or torch.jit.is_tracing()  # a trace is checked under no_grad and must not differ there
        return _conv_block(input, weight, bias, *options, (relu or pool) and wanted)[0]
    if differentiated:
        return _Eager.apply(input, weight, bias, options, shape)
    return _forward(input, weight, bias, options, shape, False)[0]


class ConvBlock(nn.Module):
    """`conv_block` with its weight and bias, initialised and named as torch.nn.Conv2d has them: a state dict of one
    loads into the other. Source of the initialisation: He et al., "Delving Deep into Rectifiers" (2015), with torch's
    a = √5, that is uniform within ±1/√(c·kh·kw); c is 1 with groups.

    Raises as `conv_block` does, and when it is built for what needs no input to be wrong."""

    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        bias: bool = True,
        relu: bool = True,
        pool: bool = True,
        groups: int = 1,
    ) -> None:
        super().__init__()
        kernel = pair(kernel_size, "kernel_size")
        stride, padding = pair(stride, "stride"), pair(padding, "padding")
        card.check_options(kernel, stride, padding, relu, pool)
        if bias not in (True, False):
            raise ValueError(f"bias must be True or False, not {bias!r}")
        if not all(isinstance(channels, Integral) and channels >= 1 for channels in (in_channels, out_channels)):
            raise ValueError(f"channels must be whole numbers from 1 on, not {in_channels} to {out_channels}")
        if groups not in (1, in_channels) or (groups > 1 and out_channels != in_channels):
            raise ValueError(f"groups must be 1, or in_channels = out_channels; not {groups}")
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *kernel))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.stride, self.padding, self.relu, self.pool, self.groups = stride, padding, relu, pool, groups
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws from torch's generator what nn.Conv2d.reset_parameters draws, in its order."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return conv_block(input, self.weight, self.bias, self.stride, self.padding, self.relu, self.pool, self.groups)

    def extra_repr(self) -> str:
        o, c, *kernel = self.weight.shape
        rest = f"stride={self.stride}, padding={self.padding}, bias={self.bias is not None}"
        rest += f", relu={self.relu}, pool={self.pool}, groups={self.groups}"
        return f"{c * self.groups}, {o}, kernel_size={tuple(kernel)}, {rest}"
