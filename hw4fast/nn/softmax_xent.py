"""softmax_xent as a torch operator, a function and a module: schema, CPU kernel, fake kernel and autograd together."""

from __future__ import annotations

import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from hw4fast.kernels import compiled
from hw4fast.kernels import softmax_xent as card
from hw4fast.nn import cuda
from hw4fast.nn.losses import Loss, gradient_of
from hw4fast.nn.operators import cast_up, check_tensors, no_tensors, threads

_C = compiled()
_CODES = {getattr(torch, name): code for name, code in card.CODES.items()}
_CUDA_DTYPES = {*_CODES, torch.float16}


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
    grad = gradient_of(logits) if want_grad else logits.new_empty((0, 0))
    _C.softmax_xent(
        _CODES[logits.dtype],
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


def _softmax_xent_cuda(
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
    target = target.contiguous()
    weight = None if weight is None else weight.contiguous()
    loss = logits.new_empty((n,) if reduction == 0 else ())
    grad = torch.empty_like(logits, memory_format=torch.contiguous_format) if want_grad else logits.new_empty((0, 0))
    if n == 0 and reduction == 0:
        return loss, grad
    _cuda = cuda.module()
    scratch = cuda.scratch(logits, _cuda.softmax_xent_scratch)
    cuda.launch(
        _cuda.softmax_xent,
        logits,
        cuda.CODES[logits.dtype],
        logits.data_ptr(),
        target.data_ptr(),
        cuda.address(weight),
        loss.data_ptr(),
        grad.data_ptr() if want_grad else 0,
        scratch.data_ptr(),
        n,
        classes,
        logits.stride(0),
        scale,
        label_smoothing,
        ignore_index,
        reduction,
    )
    return loss, grad


def _check(input: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float, reduction: str) -> None:
    """Shapes, values and dtypes: for the function, and for the operator, which anyone can call."""
    card.check(input, target, weight, label_smoothing, reduction, "input")
    if input.dtype not in (_CUDA_DTYPES if input.is_cuda else _CODES):
        known = "float16, " * input.is_cuda + "float32, float64 or bfloat16"
        raise TypeError(f"input must be {known}, not {input.dtype}")
    if target.dtype != torch.int64:
        raise TypeError(f"target must be int64 class indices, not {target.dtype}")
    if weight is not None and weight.dtype != input.dtype:
        raise TypeError(f"weight must be {input.dtype} like input, not {weight.dtype}")


def _softmax_xent_op(
    compute: Callable[..., tuple[Tensor, Tensor]],
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
    check_tensors("softmax_xent", logits, target, weight, cuda=True)
    return compute(logits, target, weight, scale, label_smoothing, ignore_index, reduction, want_grad)


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


_softmax_xent = Loss("softmax_xent", "softmax_cross_entropy", "F.cross_entropy", _softmax_xent_cpu, _softmax_xent_cuda)
_softmax_xent.define(
    "Tensor logits, Tensor target, Tensor? weight=None, float scale=1.0, float label_smoothing=0.0,"
    " SymInt ignore_index=-100, int reduction=1, bool want_grad=True",
    _softmax_xent_op,
    _softmax_xent_fake,
)


def _numbers(scale: Any, label_smoothing: Any, ignore_index: Any) -> tuple[float, float, int]:
    """As such numbers. Raises TypeError for what is none."""
    if isinstance(scale, Tensor) or isinstance(label_smoothing, Tensor):
        raise TypeError("scale and label_smoothing must be numbers: a tensor would get no gradient")
    if not isinstance(scale, Real) or not isinstance(label_smoothing, Real):
        raise TypeError(f"scale and label_smoothing must be numbers, not {scale!r} and {label_smoothing!r}")
    try:
        return float(scale), float(label_smoothing), operator.index(ignore_index)
    except TypeError:
        raise TypeError(f"ignore_index must be a whole number, not {ignore_index!r}") from None


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

    input: [n, classes] logits, float32, float64 or bfloat16, on a GPU float16, too; strided rows welcome;
    target: int64 [n];
    weight: [classes] of input's dtype; reduction: "mean", "sum" or "none".
    Loss and gradient are of input's dtype, as torch's are; bfloat16 is computed in float32 and rounded once.
    Under torch.autocast bfloat16 and float16 are cast up: as torch's, the loss is float32 and computed so.
    scale multiplies the logits first (1 / temperature, the homework's c). Returns a scalar, or [n] for "none".
    Raises ValueError for a wrong shape or value and for tensors on several devices, TypeError for a wrong type or
    dtype, NotImplementedError for a device other than the CPU and NVIDIA's GPUs, IndexError for a target that is
    neither a class nor ignore_index; on a GPU, which isn't waited for, such a target makes loss and gradient NaN.
    See hw4fast.kernels.softmax_xent for the formula, its sources and the float64 reference.
    """
    if not (
        isinstance(input, Tensor) and isinstance(target, Tensor) and (weight is None or isinstance(weight, Tensor))
    ):
        raise no_tensors({"input": input, "target": target}, weight=weight)
    if type(scale) is not float or type(label_smoothing) is not float or type(ignore_index) is not int:
        scale, label_smoothing, ignore_index = _numbers(scale, label_smoothing, ignore_index)
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index must be an int64, not {ignore_index}")
    if input.dtype is not torch.float32 or (weight is not None and weight.dtype is not torch.float32):
        input, weight = cast_up(input, weight)
    _check(input, target, weight, label_smoothing, reduction)
    if weight is not None and weight.requires_grad and torch.is_grad_enabled():
        raise ValueError("weight must not require a gradient; there is none for it: take weight.detach()")
    options = (scale, label_smoothing, ignore_index, card.REDUCTIONS[reduction])
    return _softmax_xent((input, target, weight), options)


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
