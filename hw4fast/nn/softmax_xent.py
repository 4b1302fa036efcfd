"""softmax_xent as a torch operator, a function and a module: schema, CPU kernel, fake kernel and autograd together."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hw4fast.kernels import compiled
from hw4fast.kernels import softmax_xent as card
from hw4fast.nn.operators import DTYPES, check_tensors, is_plain, library, refuse_second_derivative, threads

_C = compiled()

# -- memory of gradients -----------------------------------------------------------------------------------------

_SPARE: list[np.ndarray] = []  # at most one
_SPARE_BYTES = range(1 << 18, 1 << 27)  # below, malloc is quick; above, too much to keep
_ALIGNMENT = 64  # bytes: a vector that crosses cache lines takes two of them


def _references(array: np.ndarray) -> int:
    return sys.getrefcount(array)


def _references_when_free() -> int:
    array = np.empty(1)
    return _references(array)


_FREE = _references_when_free()


def _gradient_of(logits: Tensor) -> Tensor:
    """Uninitialised, contiguous, like `logits`. A large one takes over the memory of the last one of its size once
    nobody holds that any more: a training step frees its gradient before the next needs one, and fresh memory
    costs a page fault per 4 KiB, at (512, 1000) three times what the kernel does."""
    if logits.numel() * logits.element_size() not in _SPARE_BYTES:
        return torch.empty_like(logits, memory_format=torch.contiguous_format)
    try:
        spare = _SPARE.pop()  # popped, it is ours alone: another thread can't take it meanwhile
    except IndexError:
        spare = None
    dtype = DTYPES[logits.dtype]
    if spare is None or spare.shape != logits.shape or spare.dtype != dtype or _references(spare) > _FREE:
        raw = np.empty(logits.numel() * dtype.itemsize + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        spare = raw[start : raw.size - _ALIGNMENT + start].view(dtype).reshape(logits.shape)
    grad = torch.from_numpy(spare)  # its storage holds a reference to `spare`
    if not _SPARE:
        _SPARE.append(spare)
    return grad


library.define(
    "softmax_xent(Tensor logits, Tensor target, Tensor? weight=None, float scale=1.0, float label_smoothing=0.0,"
    " SymInt ignore_index=-100, int reduction=1, bool want_grad=True) -> (Tensor loss, Tensor grad)"
)
_softmax_xent = torch.ops.hw4fast.softmax_xent.default


def _softmax_xent_cpu(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    scale: float,
    label_smoothing: float,
    ignore_index: int,
    reduction: int,
    want_grad: bool = True,
) -> tuple[Tensor, Tensor]:
    n, classes = logits.shape
    if classes > 1 and logits.stride(1) != 1:
        logits = logits.contiguous()
    if not target.is_contiguous():
        target = target.contiguous()
    if weight is not None and not weight.is_contiguous():
        weight = weight.contiguous()
    loss = logits.new_empty((n,) if reduction == 0 else ())
    grad = _gradient_of(logits) if want_grad else logits.new_empty((0, 0))
    _C.softmax_xent(
        logits.dtype is torch.float64,
        logits.data_ptr(),
        target.data_ptr(),
        0 if weight is None else weight.data_ptr(),
        loss.data_ptr(),
        grad.data_ptr() if want_grad else 0,
        n,
        classes,
        logits.stride(0),
        scale,
        label_smoothing,
        ignore_index,
        reduction,
        "",  # positional: pybind11 takes a microsecond for keywords
        threads(),
    )
    return loss, grad


def _check(input: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float, reduction: str) -> None:
    """Shapes, values and dtypes: for the function, and for the operator, which anyone can call."""
    card.check(input, target, weight, label_smoothing, reduction)
    if input.dtype not in DTYPES:
        raise TypeError(f"input must be float32 or float64, not {input.dtype}")
    if target.dtype != torch.int64:
        raise TypeError(f"target must be int64 class indices, not {target.dtype}")
    if weight is not None and weight.dtype != input.dtype:
        raise TypeError(f"weight must be {input.dtype} like input, not {weight.dtype}")


def _softmax_xent_op(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: int = 1,
    want_grad: bool = True,
) -> tuple[Tensor, Tensor]:
    names = {number: name for name, number in card.REDUCTIONS.items()}
    _check(logits, target, weight, label_smoothing, names.get(reduction, str(reduction)))
    return _softmax_xent_cpu(logits, target, weight, scale, label_smoothing, ignore_index, reduction, want_grad)


def _softmax_xent_fake(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: int = 1,
    want_grad: bool = True,
) -> tuple[Tensor, Tensor]:
    loss = logits.new_empty((logits.shape[0],) if reduction == 0 else ())
    return loss, logits.new_empty(tuple(logits.shape) if want_grad else (0, 0))


def _keep_grad(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.want_grad = inputs[7]


def _scale_grad(ctx: Any, grad_loss: Tensor, _grad_grad: Tensor) -> tuple[Tensor | None, ...]:
    refuse_second_derivative("softmax_cross_entropy", "F.cross_entropy")
    if not ctx.want_grad:
        raise RuntimeError("softmax_xent was called with want_grad=False, so it has no gradient to give")
    (grad,) = ctx.saved_tensors
    return (grad * (grad_loss.unsqueeze(1) if grad_loss.dim() else grad_loss), *(None,) * 7)


library.impl("softmax_xent", _softmax_xent_op, "CPU")
torch.library.register_fake("hw4fast::softmax_xent", _softmax_xent_fake, lib=library)
torch.library.register_autograd("hw4fast::softmax_xent", _scale_grad, setup_context=_keep_grad, lib=library)


class _SoftmaxXentEager(torch.autograd.Function):
    """The operator's eager road: no dispatcher (10 µs), and backward hands the gradient over without a copy."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Tensor | None, options: tuple[Any, ...]) -> Tensor:
        loss, ctx.grad = _softmax_xent_cpu(logits, target, weight, *options)
        ctx.save_for_backward(logits, target, weight)
        ctx.options = options
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("softmax_cross_entropy", "F.cross_entropy")
        grad, ctx.grad = ctx.grad, None  # autograd may write into what it is given, so it is given only once
        if grad is None:  # a second backward through a retained graph
            _, grad = _softmax_xent_cpu(*ctx.saved_tensors, *ctx.options)
        if grad_loss.dim():
            grad.mul_(grad_loss.unsqueeze(1))
        elif grad_loss.item() != 1.0:
            grad.mul_(grad_loss)
        return grad, None, None, None


def softmax_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    scale: float = 1.0,
) -> Tensor:
    """torch.nn.functional.cross_entropy for class indices, loss and gradient in one pass over the logits.

    input: [n, classes] logits, float32 or float64, on the CPU, strided rows welcome; target: int64 [n];
    weight: [classes] of input's dtype; reduction: "mean", "sum" or "none".
    scale multiplies the logits first (1 / temperature, the homework's c). Returns a scalar, or [n] for "none".
    Raises ValueError for a wrong shape or value, TypeError for a wrong dtype, NotImplementedError for a device
    other than the CPU, IndexError for a target that is neither a class nor ignore_index.
    See hw4fast.kernels.softmax_xent for the formula, its sources and the float64 reference.
    """
    _check(input, target, weight, label_smoothing, reduction)
    if isinstance(scale, Tensor) or isinstance(label_smoothing, Tensor):
        raise TypeError("scale and label_smoothing must be numbers: a tensor would get no gradient")
    if weight is not None and weight.requires_grad:
        raise ValueError("weight must not require a gradient; there is none for it")
    check_tensors("softmax_xent", input, target, weight)
    options = (scale, label_smoothing, ignore_index, card.REDUCTIONS[reduction])
    want_grad = input.requires_grad and torch.is_grad_enabled()
    if not is_plain(input, target, weight):
        return _softmax_xent(input, target, weight, *options, want_grad)[0]
    if want_grad:
        return _SoftmaxXentEager.apply(input, target, weight, options)
    return _softmax_xent_cpu(input, target, weight, *options, False)[0]


class SoftmaxCrossEntropy(nn.Module):
    """`softmax_cross_entropy` with its options kept, as torch.nn.CrossEntropyLoss keeps them."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.options: dict[str, Any] = {
            "ignore_index": ignore_index,
            "reduction": reduction,
            "label_smoothing": label_smoothing,
            "scale": scale,
        }

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return softmax_cross_entropy(input, target, self.weight, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
