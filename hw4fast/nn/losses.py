"""Losses that find their gradient in the forward pass: autograd for them, and the memory of large gradients."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hw4fast.nn import cuda
from hw4fast.nn.operators import DTYPES, check_tensors, is_plain, library, refuse_second_derivative

# -- memory of gradients -----------------------------------------------------------------------------------------

_SPARE: list[np.ndarray] = []  # at most one
_SPARE_BYTES = range(1 << 18, 1 << 27)  # below, malloc is quick; above, too much to keep
_ALIGNMENT = 64  # bytes: a vector that crosses cache lines takes two of them
_MEMORY = {**DTYPES, torch.bfloat16: np.dtype(np.int16)}  # NumPy has no bfloat16


def _references(array: np.ndarray) -> int:
    return sys.getrefcount(array)


def _references_when_free() -> int:
    array = np.empty(1)
    return _references(array)


_FREE = _references_when_free()


def gradient_of(logits: Tensor) -> Tensor:
    """Uninitialised, contiguous, like `logits`. A large one takes over the memory of the last one of its size once
    nobody holds that any more: a training step frees its gradient before the next needs one, and fresh memory
    costs a page fault per 4 KiB, at (512, 1000) three times what the kernel does."""
    if logits.numel() * logits.element_size() not in _SPARE_BYTES:
        return torch.empty_like(logits, memory_format=torch.contiguous_format)
    try:
        spare = _SPARE.pop()  # popped, it is ours alone: another thread can't take it meanwhile
    except IndexError:
        spare = None
    dtype = _MEMORY[logits.dtype]
    if spare is None or spare.shape != logits.shape or spare.dtype != dtype or _references(spare) > _FREE:
        raw = np.empty(logits.numel() * dtype.itemsize + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        spare = raw[start : raw.size - _ALIGNMENT + start].view(dtype).reshape(logits.shape)
    grad = torch.from_numpy(spare)  # its storage holds a reference to `spare`
    if not _SPARE:
        _SPARE.append(spare)
    if grad.dtype is not logits.dtype:  # not as a view: autograd copies one, where it would take a tensor over
        grad = grad.view(logits.dtype)
    return grad


# -- autograd ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """A kernel as a torch operator with autograd, and the quicker road past the dispatcher for eager calls.

    name: the kernel's and the operator's; function: what users call; instead: torch's, for what ours refuses
    on_cpu, on_cuda: (logits, *tensors, *options, want_grad) → (loss, ∂(Σ loss)/∂logits), which has no numbers unless
        wanted; loss is a scalar or has the first dimensions of logits; the operator takes the same arguments
    """

    name: str
    function: str
    instead: str
    on_cpu: Callable[..., tuple[Tensor, Tensor]]
    on_cuda: Callable[..., tuple[Tensor, Tensor]]

    def compute(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        return (self.on_cpu if arguments[0].is_cpu else self.on_cuda)(*arguments)

    def define(self, arguments: str, checked: Callable[..., Any], fake: Callable[..., Any]) -> None:
        """arguments: the schema's; checked: (compute, its arguments), refuses what would crash; fake: its shapes."""
        library.define(f"{self.name}({arguments}) -> (Tensor loss, Tensor grad)")
        library.impl(self.name, partial(checked, self.on_cpu), "CPU")
        library.impl(self.name, partial(checked, self.on_cuda), "CUDA")
        name = f"hw4fast::{self.name}"
        torch.library.register_fake(name, fake, lib=library)
        torch.library.register_autograd(name, self._scale_grad, setup_context=_keep_grad, lib=library)

    def __call__(self, tensors: tuple[Any, ...], options: tuple[Any, ...]) -> Tensor:
        """The loss of (logits, *tensors, or None each). Raises NotImplementedError for what check_tensors refuses."""
        check_tensors(self.name, *tensors, cuda=True)
        want_grad = tensors[0].requires_grad and torch.is_grad_enabled()
        if not is_plain(*tensors):  # a trace is checked under no_grad and must not differ there
            return self.operator(*tensors, *options, want_grad or torch.jit.is_tracing())[0]
        if want_grad:
            return _Eager.apply(self, options, *tensors)
        return self.compute(*tensors, *options, False)[0]

    @property
    def operator(self) -> Any:
        """`compute` by way of the dispatcher, with all the checks."""
        return getattr(torch.ops.hw4fast, self.name).default

    def _scale_grad(self, ctx: Any, grad_loss: Tensor, _grad_grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative(self.function, self.instead)
        if not ctx.want_grad:
            raise RuntimeError(f"{self.name} was called with want_grad=False, so it has no gradient to give")
        (grad,) = ctx.saved_tensors
        return (grad * _reaching(grad_loss, grad), *(None,) * (len(ctx.needs_input_grad) - 1))


def _reaching(grad_loss: Tensor, grad: Tensor) -> Tensor:
    """`grad_loss` with dimensions of 1 behind its own, as many as it takes to multiply `grad`."""
    missing = grad.dim() - grad_loss.dim() if grad_loss.dim() else 0
    return grad_loss.reshape(*grad_loss.shape, *(1,) * missing) if missing else grad_loss


def _keep_grad(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    if any(ctx.needs_input_grad[1:]):
        raise ValueError("only logits have a gradient here: target and weights must not require one")
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.want_grad = inputs[-1]


def _found_again(ctx: Any) -> Tensor:
    """The gradient from the saved tensors, checked: hooks or their owner may have changed them."""
    return ctx.kernel.operator(*ctx.saved_tensors, *ctx.options, True)[1]


class _Eager(torch.autograd.Function):
    """The operators' eager road: no dispatcher (10 µs), and backward hands the gradient over without a copy."""

    @staticmethod
    def forward(ctx: Any, kernel: Loss, options: tuple[Any, ...], *tensors: Tensor | None) -> Tensor:
        loss, ctx.grad = kernel.compute(*tensors, *options, True)
        ctx.save_for_backward(*tensors)
        ctx.kernel, ctx.options = kernel, options
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        kernel = ctx.kernel
        refuse_second_derivative(kernel.function, kernel.instead)
        if not is_plain(grad_loss):  # a negative or batched one
            grad = _found_again(ctx) if ctx.grad is None else ctx.grad
            return None, None, grad * _reaching(grad_loss, grad), *(None,) * (len(ctx.needs_input_grad) - 3)
        grad, ctx.grad = ctx.grad, None  # autograd may write into what it is given, so it is given only once
        if grad is None:  # a second backward through a retained graph
            grad = _found_again(ctx)
        if grad.is_cuda:
            cuda.scale(grad, grad_loss)  # it looks on the GPU whether there is anything to do
        elif grad_loss.dim():
            grad.mul_(_reaching(grad_loss, grad))
        elif grad_loss.item() != 1.0:
            grad.mul_(grad_loss)
        return None, None, grad, *(None,) * (len(ctx.needs_input_grad) - 3)
